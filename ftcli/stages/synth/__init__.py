"""The synth stage: rows that a teacher model writes, checked and with their provenance."""
