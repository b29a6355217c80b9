"""The sample stage: answers of a model, and preference pairs made from them."""
