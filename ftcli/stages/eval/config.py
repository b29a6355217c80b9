"""Settings of the eval stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ftcli.core.config import ExecOnly, StageConfig
from ftcli.metrics.names import FAMILIES, unknown_families


class EvalConfig(StageConfig):
    """What is measured, on how many rows, and how sure the figures must be."""

    split: Literal["train", "validation", "test"] = "test"
    """Which rows: held-out test rows unless you say otherwise."""
    metrics: tuple[str, ...] = FAMILIES
    """Any of perplexity, rouge, bleu, chrf, exact_match, health. Rewards are measured whenever a reward model is given."""
    limit: int | None = Field(default=None, ge=1)
    """Use the first rows of the split only."""
    generation_limit: int | None = Field(default=100, ge=1)
    """Of those, the first rows that the models answer; null is all of them."""
    max_length: int = Field(default=1024, ge=16)
    """Rows with more tokens (prompt and reference) are left out, and counted."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer, in tokens."""
    samples_per_prompt: int = Field(default=1, ge=1)
    """Sampled answers a prompt, for the reward model only."""
    temperature: float = Field(default=1.0, gt=0)
    """Of those sampled answers; all other metrics use greedy answers."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of every model alike; auto is bf16 where the hardware has it."""
    batch_size: Annotated[int, ExecOnly(), Field(ge=1)] = 32
    """Rows computed at a time."""
    rouge_tokenizer: Literal["ascii", "words"] = "ascii"
    """ascii is the usual English ROUGE; words sees every script."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals; a difference counts when its p-value is below one minus this."""
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap and permutation draws."""
    shown_samples: int = Field(default=4, ge=0)
    """Rows shown side by side in the report."""

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        problems = unknown_families(names)
        if problems:
            raise ValueError("; ".join(problems))
        if not names:
            raise ValueError(f"name at least one of {', '.join(FAMILIES)}")
        if len(set(names)) < len(names):
            raise ValueError("a metric is named twice")
        return names
