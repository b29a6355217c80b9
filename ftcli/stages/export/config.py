"""Settings of the export stage."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftcli.core.config import StageConfig


class ExportConfig(StageConfig):
    to: Literal["merged", "adapter", "gguf"] = "merged"
    """merged: a plain Hugging Face folder; adapter: a PEFT folder; gguf: one file for llama.cpp and its kin."""
    gguf_type: Literal["f32", "f16", "bf16", "q8_0"] = "f16"
    """Number format of the weights in the GGUF file."""
    parity_rows: int = Field(default=64, ge=1)
    """Held-out rows on which the exported model is compared with the trained one."""
    parity_tokens: int = Field(default=1024, ge=1)
    """Answer tokens compared at most; each takes 4 bytes a word of the vocabulary while the models are compared."""
    min_top1_agreement: float = Field(default=0.9, ge=0, le=1)
    """Share of answer tokens where both models must find the same token likeliest."""
    max_kl_share: float = Field(default=0.05, gt=0, le=1)
    """KL divergence of the exported from the trained model, at most this share of that of the base without its adapter."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.to != "gguf" and self.gguf_type != "f16":
            raise ValueError(f"gguf_type {self.gguf_type} needs to: gguf")
        return self
