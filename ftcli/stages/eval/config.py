"""Settings of the eval stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ftcli.core.config import ExecOnly, StageConfig
from ftcli.metrics.names import DEFAULT_FAMILIES, FAMILIES, unknown_families
from ftcli.metrics.rules import Rule, check_expression


class EvalConfig(StageConfig):
    """What is measured, on how many rows, how sure the figures must be, and what fails."""

    split: Literal["train", "validation", "test"] = "test"
    """Which rows: held-out test rows unless you say otherwise."""
    metrics: tuple[str, ...] = DEFAULT_FAMILIES
    """Any of perplexity, rouge, bleu, chrf, ter, exact_match, token_f1, distinct, length, health. Rewards are measured whenever a
    reward model is given."""
    limit: int | None = Field(default=None, ge=1)
    """Use the first rows of the split only."""
    generation_limit: int | None = Field(default=100, ge=1)
    """Of those, the first rows that the models answer; null is all of them."""
    max_length: int = Field(default=1024, ge=16)
    """Rows with more tokens (prompt and reference) are left out, and counted; of text rows, the window in which they are scored."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens between the starts of two windows of a text row, below max_length; half of it unless given."""
    prefix: Literal["none", "bos", "eos"] = "none"
    """Token put before a text row; without one its first token is not scored."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer, in tokens."""
    samples_per_prompt: int = Field(default=1, ge=1)
    """Sampled answers a prompt, for the reward model only."""
    temperature: float = Field(default=1.0, gt=0)
    """Of those sampled answers; all other metrics use greedy answers."""
    suite: Literal["general", "none"] = "general"
    """Items of our own that show what a model forgot; general has facts, arithmetic, instructions, reading, code and prose."""
    suite_limit: int | None = Field(default=None, ge=1)
    """Use so many items of the suite only, of each kind alike."""
    lm_eval: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, for which the extra ftcli[lm-eval] must be installed."""
    lm_eval_chat: bool = True
    """Put the prompts of these tasks into the models' chat template."""
    lm_eval_shots: int | None = Field(default=None, ge=0)
    """Examples in these prompts, in place of the task's own number."""
    lm_eval_limit: int | None = Field(default=None, ge=1)
    """Use the first rows of each of these tasks only."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of every model alike; auto is bf16 where the hardware has it."""
    batch_size: Annotated[int, ExecOnly(), Field(ge=1)] = 32
    """Rows computed at a time; halved when memory runs out."""
    use_cache: Annotated[bool, ExecOnly()] = True
    """Keep what a model said and scored for later evaluations of the same weights."""
    rouge_tokenizer: Literal["ascii", "words", "char"] = "ascii"
    """ascii is the usual English ROUGE; words sees every script; char counts characters."""
    bleu_tokenizer: Literal["13a", "zh", "char", "intl", "none"] = "13a"
    """sacreBLEU's tokenizer, for BLEU."""
    judge_url: str = ""
    """Address of an OpenAI-compatible server, up to /v1, that judges pairs of answers; its key is in FTCLI_JUDGE_API_KEY."""
    judge_model: str = ""
    """The judge's name on that server."""
    gate: tuple[Rule, ...] = ()
    """Rules that fail the stage: {metric, max_drop | max_ratio | max | min, against, model, mode, severity}."""
    fail_if: tuple[str, ...] = ()
    """Expressions that fail the stage where they hold, such as "rougeL.delta < -0.01"."""
    gate_mode: Literal["proven", "non-inferior", "point"] = "proven"
    """proven fails where a model is proven worse; non-inferior unless it is proven not worse; point looks at the values alone."""
    strict: bool = False
    """What cannot be decided counts as not evaluable (exit code 7) instead of passing."""
    allow_leak: bool = False
    """Go on where held-out rows are among the training data of a model."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals; a difference counts when its p-value is below one minus this."""
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap and permutation draws."""
    shown_samples: int = Field(default=4, ge=0)
    """Rows shown side by side in the report, beside those that lost most."""

    @property
    def window_stride(self) -> int:
        return self.stride or self.max_length // 2

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

    @field_validator("fail_if")
    @classmethod
    def _readable(cls, expressions: tuple[str, ...]) -> tuple[str, ...]:
        for expression in expressions:
            check_expression(expression)
        return expressions

    @model_validator(mode="after")
    def _consistent(self) -> EvalConfig:
        if self.stride is not None and self.stride >= self.max_length:
            raise ValueError(f"stride {self.stride} must be below max_length {self.max_length}")
        if bool(self.judge_url) != bool(self.judge_model):
            raise ValueError("judge_url and judge_model belong together")
        if self.suite == "none" and self.suite_limit is not None:
            raise ValueError("suite_limit counts items of a suite, and suite is none")
        for_tasks = {
            "lm_eval_chat": not self.lm_eval_chat,
            "lm_eval_shots": self.lm_eval_shots is not None,
            "lm_eval_limit": self.lm_eval_limit is not None,
        }
        if (given := [name for name, is_given in for_tasks.items() if is_given]) and not self.lm_eval:
            raise ValueError(f"{', '.join(given)}: lm_eval names no task")
        return self
