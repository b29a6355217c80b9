"""The ppo stage: a policy improved against a reward model."""
