"""The export stage: a trained model as something to ship, proven to be the trained model."""
