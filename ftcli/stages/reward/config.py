"""Settings of the reward stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftcli.core.config import ExecOnly, StageConfig


class RewardConfig(StageConfig):
    """Settings of reward. The lora_ fields describe a new adapter; one that starts from the policy's keeps its own
    shape."""

    init_from: Literal["policy", "base"] = "policy"
    """Where the reward adapter starts: policy copies the input model's adapter (a whole model has none, so a new one is
    put on it); base puts a new adapter on the bare base model."""
    max_length: int = Field(1024, ge=8)
    """Tokens of prompt and answer together."""
    overlong: Literal["truncate", "reject"] = "truncate"
    """What happens to pairs longer than max_length: the prompt loses its beginning, or the pair is left out; both are
    counted. A pair whose answer alone is too long is always left out."""
    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the prompts; more than one soon overfits."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps, in place of num_train_epochs."""
    global_batch_size: int = Field(16, ge=1)
    """Prompts of one optimizer step; all pairs of a prompt go together and count as one prompt."""
    micro_batch_size: Annotated[int, ExecOnly()] = Field(8, ge=1)
    """Prompts computed at once."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW, for adapter and head."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after warm-up."""
    warmup_steps: float = Field(0.0, ge=0)
    """Steps of linear warm-up; below 1, a share of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    center_rewards_coefficient: float = Field(0.0, ge=0)
    """Weight of (chosen + rejected)^2, which keeps scores near 0; 0.01 is usual where it is used."""
    lora_r: int = Field(16, ge=1)
    """Rank of a new adapter, on every linear layer but the head."""
    lora_alpha: int = Field(32, ge=1)
    """A new adapter counts lora_alpha / lora_r times."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the frozen weights and the computation; auto is bf16 where the hardware multiplies it. Adapter and head are
    float32."""
    save_steps: Annotated[int, ExecOnly()] = Field(50, ge=1)
    """Write a checkpoint every so many steps, for going on after a crash."""
