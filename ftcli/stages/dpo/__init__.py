"""The dpo stage: a model learns from preference pairs directly, without a reward model."""
