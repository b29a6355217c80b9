"""Models: load and save, quantise, adapters, heads, token log-probabilities, generation."""
