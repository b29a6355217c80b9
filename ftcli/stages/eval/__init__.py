"""Measure models on the same held-out rows and write a report."""
