"""A small result as the stage writes it, made without a model."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ftcli.stages.eval.config import EvalConfig


def _figure(value: float, low: float, high: float, higher_is_better: bool | None) -> dict[str, Any]:
    ci = [low, high]
    return {"value": value, "n": 8, "ci": ci, "se": 0.25, "higher_is_better": higher_is_better, "signature": "v:1"}


def _compared(metric: str, change: float, verdict: str, p: float, scale: str = "difference") -> dict[str, Any]:
    entry = {"model": "lora", "against": "base", "metric": metric, "scale": scale, "n": 8, "se": 0.01, "p": p}
    return {**entry, "change": change, "ci": [change - 0.1, change + 0.1], "verdict": verdict}


_FACTS = {"trainable_share": 0.035, "perf/seconds": 61.2, "perf/peak_memory_bytes": 2 * 2**30, "train/loss": 2.5}
_ORIGIN = {"ref": "stages/lora/0123/model", "digest": "sha256:22", "storage": "adapter on nf4 base", "start": None}

_RESULT: dict[str, Any] = {
    "format": 1,
    "baseline": "base",
    "data": {"ref": "stages/prep/4567/data", "digest": "sha256:33", "split": "test"},
    "rows": {"scored": 9, "answered": 8, "left_out": 1},
    "dtype": "bfloat16",
    "device": "cpu",
    "settings": EvalConfig(shown_samples=2).model_dump(mode="json"),
    "reward": None,
    "models": {
        "base": {
            "perplexity": _figure(45.9, 44, 48, False),
            "rougeL": _figure(0.19, 0.15, 0.23, True),
            "empty_rate": _figure(0, 0, 0.1, False),
        },
        "lora": {
            "perplexity": _figure(17.1, 16, 18, False),
            "rougeL": _figure(0.2, 0.16, 0.24, True),
            "empty_rate": _figure(0.25, 0.1, 0.4, False),
        },
    },
    "comparisons": [
        _compared("perplexity", 0.373, "better", 0.0002, "ratio"),
        _compared("rougeL", 0.01, "within noise", 0.4),
        _compared("empty_rate", 0.25, "worse", 0.01),
    ],
    "artifacts": {
        "base": {
            "ref": "demo:smollm2",
            "digest": "sha256:11",
            "storage": "full model",
            "base": None,
            "start": None,
            "bytes": 517 * 2**20,
            "facts": {},
        },
        "lora": {
            **_ORIGIN,
            "base": {"ref": "demo:smollm2", "digest": "sha256:11"},
            "bytes": 22 * 2**20,
            "facts": _FACTS,
        },
    },
}


def small_result() -> dict[str, Any]:
    """Two models, three metrics: perplexity better, ROUGE-L within noise, empty answers worse."""
    return deepcopy(_RESULT)


def small_samples(answer: str = "An answer.") -> list[dict[str, Any]]:
    """Nine rows, eight of them answered."""
    greedy = {"text": answer, "finish_reason": "length", "tokens": 7}
    return [
        {
            "id": f"row-{index}",
            "prompt": [{"role": "user", "content": f"Question {index}?"}],
            "reference": f"Reference {index}.",
            "models": {label: {"greedy": greedy} if index < 8 else {} for label in ("base", "lora")},
        }
        for index in range(9)
    ]
