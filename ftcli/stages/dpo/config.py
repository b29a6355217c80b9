"""Settings of the dpo stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ftcli.core.config import ExecOnly, StageConfig, non_default


class DpoConfig(StageConfig):
    """Settings of dpo. The lora_ fields describe a new adapter; an input that is an adapter is trained further and keeps its own
    shape."""

    method: Literal["auto", "lora", "qlora", "full"] = "auto"
    """What is trained: an adapter on the frozen model (lora), on the model in 4 bits (qlora), or all weights (full). auto trains an
    adapter further as it was made, and puts a new one on a whole model."""
    beta: float = Field(0.1, gt=0)
    """How strongly the model is held to where it started; higher is closer. For ipo it is the paper's tau."""
    loss_type: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """sigmoid is DPO; ipo aims at a fixed margin, with log-probabilities averaged over an answer's tokens; hinge is linear up to a
    margin."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """The share of pairs expected to be labelled the wrong way round (sigmoid only)."""
    max_length: int = Field(1024, ge=8)
    """Tokens of prompt and answer together."""
    overlong: Literal["truncate", "reject"] = "truncate"
    """What happens to pairs longer than max_length: the prompt loses its beginning, or the pair is left out; both are counted. A
    pair whose answer alone is too long is always left out."""
    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the pairs; a fraction is allowed."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps, in place of num_train_epochs."""
    global_batch_size: int = Field(16, ge=1)
    """Pairs of one optimizer step."""
    micro_batch_size: Annotated[int | None, ExecOnly()] = Field(None, ge=1)
    """Pairs computed at once; must divide global_batch_size. Default: chosen by their length and the device."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW. Default: 5e-6 for an adapter, 5e-7 for all weights, as TRL's examples have it; small models
    bear more."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after warm-up."""
    warmup_steps: float = Field(0.0, ge=0)
    """Steps of linear warm-up from 0; below 1, a share of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay; biases and norms are exempt."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    lora_r: int = Field(16, ge=1)
    """Rank of a new adapter, on every linear layer but the head."""
    lora_alpha: int = Field(32, ge=1)
    """A new adapter counts lora_alpha / lora_r times."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the computation and of frozen weights; auto is bf16 where the hardware multiplies it. Trained weights are float32."""
    gradient_checkpointing: Annotated[bool | None, ExecOnly()] = None
    """Compute activations twice to hold fewer in memory. Default: where a GPU's memory would not do without."""
    save_steps: Annotated[int, ExecOnly()] = Field(200, ge=1)
    """Write a checkpoint every so many steps, for going on after a crash."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.micro_batch_size and self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is no multiple of micro_batch_size {self.micro_batch_size}"
            )
        if self.label_smoothing and self.loss_type != "sigmoid":
            raise ValueError(f"label_smoothing is for loss_type sigmoid; {self.loss_type} has none")
        if self.lr_scheduler_type == "constant" and self.warmup_steps:
            raise ValueError("lr_scheduler_type constant has no warm-up; linear and cosine have")
        given = [name for name in ("lora_r", "lora_alpha") if name in non_default(self)]
        if self.method == "full" and given:
            raise ValueError(f"{' and '.join(given)}: method full trains all weights and makes no adapter")
        return self


def leaner(config: DpoConfig, facts: Mapping[str, Any]) -> tuple[DpoConfig, str] | None:
    """After memory ran out: half the micro-batch for the same step, then gradient checkpointing; None if both were tried.

    ``facts`` tell what was in use; without them memory ran out before training, which neither helps.
    """
    micro = facts.get("micro_batch_size")
    if micro is None:
        return None
    if micro > 1:
        smaller = max(size for size in range(1, micro // 2 + 1) if config.global_batch_size % size == 0)
        text = f"with micro_batch_size {smaller} instead of {micro}, the same global_batch_size"
        return config.model_copy(update={"micro_batch_size": smaller}), text
    if not facts.get("gradient_checkpointing"):
        return config.model_copy(update={"micro_batch_size": 1, "gradient_checkpointing": True}), (
            "with gradient_checkpointing"
        )
    return None
