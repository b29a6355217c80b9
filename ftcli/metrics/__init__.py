"""Measures of a model's answers, and how sure they are: perplexity, text overlap, health, paired statistics, plots."""
