"""Supervised training: the order of rows, the loss, adapters, the trainer, checkpoints and reports."""
