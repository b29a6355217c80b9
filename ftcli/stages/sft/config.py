"""Settings of sft, lora and qlora."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ftcli.core.config import ExecOnly, StageConfig
from ftcli.stages.sft.encode import TooLong


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
    """Tokens of a row."""
    too_long: TooLong = "truncate"
    """What becomes of longer rows: cut at their end or beginning, left out, or the stage refuses. Rows that a cut leaves
    without an answer are left out; all are counted, with the share of trained tokens lost.
    """
    dataset_weights: dict[str, float] | None = None
    """Shares in which several data inputs are mixed, by label, e.g. {chat: 3, code: 1}. Default: by their rows."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "polynomial",
        "inverse_sqrt",
        "warmup_stable_decay",
        "constant",
        "constant_with_warmup",
    ] = "linear"
    """How the learning rate goes on after warm-up."""
    lr_scheduler_kwargs: dict[str, float] | None = None
    """What the schedule takes besides, e.g. {min_lr_rate: 0.1} or {num_cycles: 2}."""
    warmup_steps: float = Field(0.0, ge=0)
    """Steps of linear warm-up from 0; below 1, a share of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay; biases and norms are exempt."""
    optim: Literal["auto", "adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor"] = "auto"
    """The optimizer; auto is paged_adamw_8bit for qlora on a GPU, adamw_torch_fused elsewhere."""
    neftune_noise_alpha: float | None = Field(None, gt=0)
    """Noise on the embeddings while training (NEFTune); 5 is usual."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the computation; auto is bf16 where the hardware multiplies it. Trained weights are kept in float32 either
    way.
    """
    gradient_checkpointing: Annotated[bool | None, ExecOnly()] = None
    """Compute activations twice to hold fewer in memory. Default: where a GPU's memory would not do without."""
    attn_implementation: Annotated[Literal["auto", "packed", "sdpa", "eager"], ExecOnly()] = "auto"
    """packed lays rows end to end, without padding and without attention across rows; auto is that where the model can."""
    torch_compile: Annotated[bool | None, ExecOnly()] = None
    """Compile the model. Default: no, since rows of ever new lengths are compiled anew."""
    use_liger_kernel: Annotated[bool | None, ExecOnly()] = None
    """Liger's kernels for norms, rotary embeddings and MLPs. Default: on a GPU, where liger-kernel is installed."""
    eval_steps: int | None = Field(None, ge=1)
    """Measure validation loss every so many steps; it is always measured at the end."""
    eval_rows: int = Field(256, ge=0)
    """The first so many validation rows of each data input count; 0 measures no validation loss."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after so many validations in a row without a lower loss, and publish the best weights; needs eval_steps."""
    load_best_model_at_end: bool = False
    """Publish the weights of the lowest validation loss instead of the last ones; needs eval_steps."""
    save_steps: Annotated[int, ExecOnly()] = Field(200, ge=1)
    """Write a checkpoint every so many steps, for going on after a crash."""
    logging_steps: Annotated[int, ExecOnly()] = Field(1, ge=1)
    """Write training metrics every so many steps."""
    report_to: Annotated[tuple[str, ...], ExecOnly()] = ()
    """Trackers that get the metrics too, by their names in transformers, e.g. tensorboard."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.micro_batch_size and self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is no multiple of micro_batch_size {self.micro_batch_size}"
            )
        if self.lr_scheduler_type == "constant" and self.warmup_steps:
            raise ValueError("lr_scheduler_type constant has no warm-up; constant_with_warmup has")
        _check_schedule(self.lr_scheduler_type, self.lr_scheduler_kwargs or {})
        if self.keeps_best and not (self.eval_steps and self.eval_rows):
            raise ValueError(
                "early_stopping_patience and load_best_model_at_end need eval_steps, and eval_rows above 0"
            )
        wrong = [name for name, weight in (self.dataset_weights or {}).items() if weight <= 0]
        if wrong:
            raise ValueError(f"dataset_weights: the weight of {', '.join(wrong)} must be above 0")
        return self

    @field_validator("report_to", mode="before")
    @classmethod
    def _split_trackers(cls, value: Any) -> Any:
        return _words(value)

    @property
    def keeps_best(self) -> bool:
        return self.load_best_model_at_end or self.early_stopping_patience is not None


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
    lora_modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole beside the adapters and saved with them, e.g. embed_tokens for added tokens."""
    use_rslora: bool = False
    """Scale adapters by lora_alpha / sqrt(lora_r), for high ranks (rsLoRA)."""
    use_dora: bool = False
    """Train each weight's magnitude apart from its direction (DoRA); slower."""
    init_lora_weights: Literal["default", "pissa", "loftq"] = "default"
    """Where adapters start: default at no change; pissa at the weights' largest singular directions (lora only); loftq at
    what 4-bit rounding took (qlora only).
    """

    @field_validator("lora_target_modules", "lora_modules_to_save", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _words(value)

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.init_lora_weights == "loftq" and not isinstance(self, QloraConfig):
            raise ValueError("init_lora_weights loftq is for qlora: lora rounds nothing")
        if self.init_lora_weights == "pissa":
            if isinstance(self, QloraConfig):
                raise ValueError(
                    "init_lora_weights pissa changes the base weights, which qlora holds in 4 bits; loftq is for it"
                )
            if self.use_dora or self.lora_modules_to_save:
                raise ValueError("init_lora_weights pissa goes with neither use_dora nor lora_modules_to_save")
        return self


class QloraConfig(LoraConfig):
    """Settings of qlora: the frozen weights are 4-bit NormalFloat (nf4)."""

    double_quant: bool = True
    """Quantise the quantisation constants too: 0.52 instead of 0.56 bytes a weight."""


SCHEDULE_KEYS: dict[str, set[str]] = {
    "cosine": {"num_cycles"},
    "cosine_with_restarts": {"num_cycles"},
    "cosine_with_min_lr": {"num_cycles", "min_lr", "min_lr_rate"},
    "polynomial": {"lr_end", "power"},
    "inverse_sqrt": {"timescale"},
    "warmup_stable_decay": {"num_decay_steps", "min_lr_ratio", "num_cycles"},
}
"""What transformers' schedules take in ``lr_scheduler_kwargs``."""


def _check_schedule(name: str, given: Mapping[str, float]) -> None:
    wrong = sorted(set(given) - SCHEDULE_KEYS.get(name, set()))
    if wrong:
        known = ", ".join(sorted(SCHEDULE_KEYS.get(name, set()))) or "nothing"
        raise ValueError(f"lr_scheduler_kwargs: {name} takes {known}, not {', '.join(wrong)}")
    if name == "cosine_with_min_lr" and len({"min_lr", "min_lr_rate"} & set(given)) != 1:
        raise ValueError("lr_scheduler_kwargs: cosine_with_min_lr needs min_lr or min_lr_rate, e.g. {min_lr_rate: 0.1}")
    if name == "warmup_stable_decay" and "num_decay_steps" not in given:
        raise ValueError("lr_scheduler_kwargs: warmup_stable_decay needs num_decay_steps")


def _words(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def leaner(config: SftConfig, facts: Mapping[str, Any]) -> tuple[SftConfig, str] | None:
    """After memory ran out: half the micro-batch for the same step, then gradient checkpointing; None if both were tried.

    ``facts`` tell what was in use; without them memory ran out before training, which neither helps.
    """
    micro, checkpointing = facts.get("micro_batch_size"), facts.get("gradient_checkpointing")
    if micro is None:
        return None
    if micro > 1:
        smaller = max(size for size in range(1, micro // 2 + 1) if config.global_batch_size % size == 0)
        changed: dict[str, Any] = {"micro_batch_size": smaller}
        text = f"with micro_batch_size {smaller} instead of {micro}, the same global_batch_size"
    elif not checkpointing:
        changed = {"micro_batch_size": 1, "gradient_checkpointing": True}
        text = "with gradient_checkpointing"
    else:
        return None
    return config.model_copy(update=changed), text
