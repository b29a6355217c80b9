"""Reward models and PPO as pure tensor functions and small objects, with no knowledge of configs, files of rows or
run directories."""
