"""Rows and their kinds, sources, chat rendering, cleaning, deduplication, splitting: plain functions on rows."""
