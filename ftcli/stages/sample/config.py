"""Settings of the sample stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftcli.core.config import ExecOnly, StageConfig


class SampleConfig(StageConfig):
    train_prompts: int | None = Field(default=None, ge=1)
    """Use only the first N prompts of the train split; unset uses all."""
    validation_prompts: int | None = Field(default=None, ge=1)
    """Use only the first N prompts of the validation split; unset uses all."""
    test_prompts: int = Field(default=0, ge=0)
    """Also answer the first N prompts of the test split, for people to compare models on; no pairs are made of them."""
    samples_per_prompt: int = Field(default=3, ge=1)
    """Answers of each model to each prompt (k)."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer, in tokens; an answer cut off there has finish_reason length."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature over the whole vocabulary (no top-k or top-p)."""
    max_prompt_length: int = Field(default=1024, ge=1)
    """Prompts with more tokens are skipped and counted."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto is bf16 where the hardware multiplies it, else fp32."""
    batch_size: Annotated[int, ExecOnly()] = Field(default=32, ge=1)
    """Rows decoded together."""
