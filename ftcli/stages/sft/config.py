"""Settings of sft, lora and qlora."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ftcli.core.config import ExecOnly, StageConfig


class SftConfig(StageConfig):
    """Settings of sft, and of training in general."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate of AdamW."""
    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the train rows; a fraction is allowed."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps, in place of num_train_epochs."""
    global_batch_size: int = Field(16, ge=1)
    """Rows of one optimizer step."""
    micro_batch_size: Annotated[int | None, ExecOnly()] = Field(None, ge=1)
    """Rows computed at once; must divide global_batch_size. Default: chosen by row length and device."""
    max_length: int = Field(1024, ge=8)
    """Tokens of a row; longer rows are cut from the right, and dropped where that leaves no answer (both are
    counted).
    """
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """How the learning rate goes on after warm-up."""
    warmup_steps: float = Field(0.0, ge=0)
    """Steps of linear warm-up from 0; below 1, a share of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay; biases and norms are exempt."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the computation; auto is bf16 where the hardware multiplies it. Trained weights are kept in float32 either
    way.
    """
    gradient_checkpointing: Annotated[bool, ExecOnly()] = False
    """Compute activations twice to hold fewer in memory."""
    eval_steps: int | None = Field(None, ge=1)
    """Measure validation loss every so many steps; it is always measured at the end."""
    eval_rows: int = Field(256, ge=0)
    """The first so many validation rows count; 0 measures no validation loss."""
    save_steps: Annotated[int, ExecOnly()] = Field(200, ge=1)
    """Write a checkpoint every so many steps, for going on after a crash."""
    logging_steps: Annotated[int, ExecOnly()] = Field(1, ge=1)
    """Write training metrics every so many steps."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.micro_batch_size and self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is no multiple of micro_batch_size {self.micro_batch_size}"
            )
        if self.lr_scheduler_type == "constant" and self.warmup_steps:
            raise ValueError("lr_scheduler_type constant has no warm-up; constant_with_warmup has")
        return self


class LoraConfig(SftConfig):
    """Settings of lora. The lora_ fields describe new adapters; an input that is an adapter keeps its own."""

    learning_rate: float = Field(2e-4, gt=0)
    """Peak learning rate of AdamW."""
    lora_r: int = Field(16, ge=1)
    """Rank of the adapters."""
    lora_alpha: int = Field(32, ge=1)
    """Adapters count lora_alpha / lora_r times."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in front of the adapters."""
    lora_target_modules: tuple[str, ...] = Field(("all-linear",), min_length=1)
    """Names of the layers that get adapters, e.g. q_proj,v_proj; all-linear is every linear layer but the head."""

    @field_validator("lora_target_modules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class QloraConfig(LoraConfig):
    """Settings of qlora: the frozen weights are 4-bit NormalFloat (nf4)."""

    double_quant: bool = True
    """Quantise the quantisation constants too: 0.52 instead of 0.56 bytes a weight."""
