"""Settings of the reward stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ftcli.core.config import ExecOnly, StageConfig, non_default


class RewardConfig(StageConfig):
    """Settings of reward. The lora_ fields describe a new adapter; one that starts from the policy's keeps its own
    shape."""

    method: Literal["auto", "lora", "qlora", "full"] = "auto"
    """What is trained beside the head: auto an adapter, on 4-bit weights where the input's was; lora or qlora an
    adapter on unrounded or 4-bit weights; full all weights of a whole model."""
    init_from: Literal["policy", "base"] = "policy"
    """Where the reward adapter starts: policy copies the input model's adapter (a whole model has none, so a new one is
    put on it); base puts a new adapter on the bare base model."""
    max_length: int = Field(1024, ge=8)
    """Tokens of prompt and answer together."""
    overlong: Literal["truncate", "reject"] = "truncate"
    """What happens to pairs longer than max_length: the prompt loses its beginning, or the pair is left out; both are
    counted. A pair whose answer alone is too long is always left out."""
    ties: Literal["drop", "soft", "davidson"] = "drop"
    """What answers of equal rank teach: drop nothing; soft that either wins with probability one half; davidson that
    ties are an outcome of their own, whose share is learned as one number, nu."""
    pair_weighting: Literal["prompt", "pair"] = "prompt"
    """What counts alike: prompt shares the weight 1 among the pairs of a prompt; pair gives each pair the weight 1."""
    use_margin: bool = False
    """Ask for scores that differ by as much as the data says: meta.margin, or meta.chosen_score less
    meta.rejected_score; for rankings the differences of meta.scores."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of pairs whose labels are swapped."""
    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the prompts; more than one soon overfits."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps, in place of num_train_epochs."""
    global_batch_size: int = Field(16, ge=1)
    """Prompts of one optimizer step; all pairs of a prompt go together and count as one prompt."""
    micro_batch_size: Annotated[int, ExecOnly()] = Field(8, ge=1)
    """Prompts computed at once."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW; not given, 1e-4 for an adapter and 1e-5 for all weights."""
    head_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the head; not given, that of an adapter, and 10 times that of all weights."""
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
    """Of the frozen weights and the computation; auto is bf16 where the hardware multiplies it. What is trained is
    float32."""
    save_steps: Annotated[int, ExecOnly()] = Field(50, ge=1)
    """Write a checkpoint every so many steps, for going on after a crash."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        idle = sorted({"init_from", "lora_r", "lora_alpha"} & set(non_default(self)))
        if self.method == "full" and idle:
            raise ValueError(f"method full has no adapter, so {', '.join(idle)} would do nothing")
        return self


def learning_rates(config: RewardConfig, *, is_whole: bool) -> tuple[float, float]:
    """Peaks for the backbone, all of whose weights are trained if ``is_whole``, and for the head."""
    backbone = config.learning_rate or (1e-5 if is_whole else 1e-4)
    return backbone, config.head_learning_rate or (10 * backbone if is_whole else backbone)


def leaner(config: RewardConfig, facts: Mapping[str, Any]) -> tuple[RewardConfig, str] | None:
    """After memory ran out: half the micro-batch for the same step, down to one prompt; None if that was in use.

    ``facts`` tell what was in use; without them memory ran out before training, where this does not help.
    """
    micro = facts.get("micro_batch_size")
    if micro is None or micro == 1:
        return None
    text = f"with micro_batch_size {micro // 2} instead of {micro}, the same global_batch_size"
    return config.model_copy(update={"micro_batch_size": micro // 2}), text
