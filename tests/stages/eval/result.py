"""A result of every kind of finding as the stage writes it, made by hand without a model, and a small one cut from it."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

Json = dict[str, Any]

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(2)>"
RIGHT_TO_LEFT = (
    "\u0643\u064a\u0641 \u0623\u0641\u062a\u062d \u0645\u0644\u0641\u0627\u064b\u061f"  # how do I open a file?
)
CHINESE = "\u600e\u4e48\u6253\u5f00\u6587\u4ef6\uff1f"  # how does one open a file?


def _metric(
    title: str, family: str, higher: bool | None, decimals: int, help: str, margin: float | None = None, **more: bool
) -> Json:
    base = {"title": title, "family": family, "higher_is_better": higher, "decimals": decimals, "help": help}
    return {**base, "is_share": False, "is_ratio": False, **more, "margin": margin}


METRICS: dict[str, Json] = {
    "perplexity": _metric(
        "Perplexity", "perplexity", False, 2, "exp of the mean nll of the reference's tokens", 1.02, is_ratio=True
    ),
    "rouge1": _metric("ROUGE-1", "rouge", True, 3, "F1 of shared words, mean over rows", 0.01),
    "rougeL": _metric("ROUGE-L", "rouge", True, 3, "F1 of the longest common word sequence, mean over rows", 0.01),
    "bleu": _metric("BLEU", "bleu", True, 2, "sacreBLEU of all rows together, 0 to 100", 1.0),
    "chrf": _metric("chrF++", "chrf", True, 2, "character and word n-gram F-score, 0 to 100", 1.0),
    "exact_match": _metric(
        "Exact match", "exact_match", True, 3, "share of answers equal to the reference", 0.02, is_share=True
    ),
    "distinct2": _metric("Distinct-2", "distinct", None, 3, "different word pairs by all word pairs"),
    "empty_rate": _metric("Empty", "health", False, 3, "share of answers without any text", 0.01, is_share=True),
    "hit_max_rate": _metric(
        "Hit max tokens", "health", False, 3, "share of answers cut off at max_new_tokens", 0.02, is_share=True
    ),
    "repetition_rate": _metric("Repetition", "health", False, 3, "share of 4-grams that were said before", 0.01),
    "mean_length": _metric("Length", "health", None, 1, "mean tokens of an answer"),
    "length_ratio": _metric("Length ratio", "health", None, 2, "answer by reference, in characters"),
    "reward_sampled": _metric("Reward, sampled", "reward", True, 3, "mean score of sampled answers", 0.1),
    "general.nll": _metric("All probes", "general", False, 3, "nll of the right answers, nats a token", 0.02),
    "general.facts_nll": _metric("Facts", "general", False, 3, "nll of the right answer", 0.02),
    "general.facts_accuracy": _metric("Facts, accuracy", "general", True, 3, "share right", 0.02, is_share=True),
    "general.arithmetic_nll": _metric("Arithmetic", "general", False, 3, "nll of the right answer", 0.02),
    "general.arithmetic_accuracy": _metric(
        "Arithmetic, accuracy", "general", True, 3, "share right", 0.02, is_share=True
    ),
    "general.code_bpb": _metric("Code", "general", False, 3, "nll of code", 0.02),
    "general.kl": _metric("Token KL", "general", None, 4, "KL from the base on its own answers, nats a token"),
    "judge.reward": _metric("Judge: reward model", "judge", True, 3, "share of pairs won, ties half"),
    "judge.llm": _metric("Judge: language model", "judge", True, 3, "share of pairs won, ties half"),
    "custom.polite": _metric("custom.polite", "custom", True, 3, "share of answers that thank"),
}

# value of base, lora and ppo, half-width of their intervals
_VALUES: dict[str, tuple[float | None, float | None, float | None, float]] = {
    "perplexity": (45.9, 17.1, 21.4, 1.9),
    "rouge1": (0.243, 0.301, 0.262, 0.02),
    "rougeL": (0.190, 0.239, 0.200, 0.018),
    "bleu": (4.12, 7.9, 4.5, 1.1),
    "chrf": (21.2, 27.93, 21.25, 1.4),
    "exact_match": (0.02, 0.06, 0.03, 0.03),
    "distinct2": (0.61, 0.66, 0.48, 0.02),
    "empty_rate": (0.0, 0.25, 0.01, 0.04),
    "hit_max_rate": (0.34, 0.08, 0.02, 0.06),
    "repetition_rate": (0.121, 0.042, 0.125, 0.03),
    "mean_length": (98.2, 41.7, 120.4, 5.0),
    "length_ratio": (2.31, 1.04, 2.88, 0.12),
    "reward_sampled": (-0.6, -0.21, 0.61, 0.18),
    "general.nll": (1.204, 1.271, 1.302, 0.05),
    "general.facts_nll": (1.01, 1.18, 1.03, 0.06),
    "general.facts_accuracy": (0.27, 0.25, 0.27, 0.11),
    "general.arithmetic_nll": (1.9, 1.91, 2.4, 0.1),
    "general.arithmetic_accuracy": (0.45, 0.43, 0.32, 0.12),
    "general.code_bpb": (0.88, 0.881, 0.87, 0.04),
    "general.kl": (0.0, 0.0312, 0.1875, 0.006),
    "judge.reward": (None, 0.62, 0.81, 0.05),
    "judge.llm": (None, 0.55, 0.58, 0.07),
    "custom.polite": (0.4, 0.4, None, 0.1),
}

_COMPARED: list[tuple[str, str, str, float | None, tuple[float, float] | None, float | None, float | None, str]] = [
    # model, against, metric, change, interval, p, mde, status
    ("lora", "base", "perplexity", 0.373, (0.351, 0.398), 0.0001, 1.09, "improved"),
    ("lora", "base", "rouge1", 0.058, (0.031, 0.085), 0.0002, 0.039, "improved"),
    ("lora", "base", "rougeL", 0.049, (0.028, 0.0715), 0.0004, 0.031, "improved"),
    ("lora", "base", "bleu", 3.78, (1.9, 5.5), 0.0003, 2.6, "improved"),
    ("lora", "base", "chrf", 6.73, (4.4, 9.1), 0.0001, 3.3, "improved"),
    ("lora", "base", "exact_match", 0.04, (-0.005, 0.085), 0.125, 0.064, "inconclusive"),
    ("lora", "base", "distinct2", 0.05, (0.03, 0.07), 0.0004, 0.028, "changed"),
    ("lora", "base", "empty_rate", 0.25, (0.17, 0.34), 0.0001, 0.12, "regressed"),
    ("lora", "base", "hit_max_rate", -0.26, (-0.36, -0.17), 0.0001, 0.13, "improved"),
    ("lora", "base", "repetition_rate", -0.079, (-0.112, -0.048), 0.0002, 0.045, "improved"),
    ("lora", "base", "mean_length", -56.5, (-63.1, -50.2), 0.0001, 9.2, "changed"),
    ("lora", "base", "length_ratio", -1.27, (-1.45, -1.1), 0.0001, 0.25, "changed"),
    ("lora", "base", "reward_sampled", 0.39, (0.16, 0.62), 0.0012, 0.33, "improved"),
    ("lora", "base", "general.nll", 0.067, (0.024, 0.11), 0.0021, 0.062, "regressed"),
    ("lora", "base", "general.facts_nll", 0.17, (0.09, 0.25), 0.0003, 0.11, "regressed"),
    ("lora", "base", "general.facts_accuracy", -0.02, (-0.08, 0.04), 0.75, 0.087, "inconclusive"),
    ("lora", "base", "general.arithmetic_nll", 0.01, (-0.04, 0.06), 0.71, 0.071, "inconclusive"),
    ("lora", "base", "general.arithmetic_accuracy", -0.02, (-0.1, 0.07), 0.8, 0.11, "inconclusive"),
    ("lora", "base", "general.code_bpb", 0.001, (-0.012, 0.015), 0.88, 0.019, "equivalent"),
    ("lora", "base", "general.kl", 0.0312, (0.027, 0.036), 0.0001, 0.006, "changed"),
    ("lora", "base", "judge.reward", 0.12, (0.05, 0.19), 0.0011, 0.1, "improved"),
    ("lora", "base", "judge.llm", None, None, None, None, "not evaluable"),
    ("lora", "base", "custom.polite", 0.0, (-0.004, 0.004), 1.0, 0.006, "equivalent"),
    ("ppo", "base", "perplexity", None, None, None, None, "not evaluable"),
    ("ppo", "base", "rouge1", 0.019, (-0.008, 0.045), 0.16, 0.038, "inconclusive"),
    ("ppo", "base", "rougeL", 0.01, (-0.012, 0.032), 0.4, 0.031, "inconclusive"),
    ("ppo", "base", "chrf", 0.05, (-0.62, 0.71), 0.9, 0.95, "equivalent"),
    ("ppo", "base", "empty_rate", 0.01, (-0.01, 0.03), 1.0, 0.028, "inconclusive"),
    ("ppo", "base", "mean_length", 22.2, (14.0, 30.9), 0.0001, 12.1, "changed"),
    ("ppo", "base", "reward_sampled", 1.21, (0.98, 1.45), 0.0001, 0.33, "improved"),
    ("ppo", "base", "general.nll", 0.098, (0.051, 0.146), 0.0001, 0.067, "regressed"),
    ("ppo", "base", "judge.reward", 0.31, (0.24, 0.37), 0.0001, 0.1, "improved"),
    ("ppo", "base", "judge.llm", None, None, None, None, "not evaluable"),
    ("ppo", "lora", "reward_sampled", 0.82, (0.6, 1.05), 0.0001, 0.31, "improved"),
    ("ppo", "lora", "rougeL", -0.039, (-0.06, -0.018), 0.0006, 0.029, "regressed"),
]
_REASONS = {
    ("ppo", "perplexity"): "the tokenizers cut the references into different tokens; bits per byte compares them",
    ("lora", "judge.llm"): "the judge is unfit: position consistency 0.10, at least 0.60 needed",
    ("ppo", "judge.llm"): "the judge is unfit: position consistency 0.10, at least 0.60 needed",
}
_BINARY = {name for name, metric in METRICS.items() if metric["is_share"]}


def compared(
    model: str,
    against: str,
    metric: str,
    change: float | None,
    ci: tuple[float, float] | None,
    p: float | None,
    mde: float | None,
    status: str,
) -> Json:
    """One entry of ``comparisons``."""
    is_ratio = METRICS[metric]["is_ratio"]
    return {
        "model": model,
        "against": against,
        "metric": metric,
        "scale": "ratio" if is_ratio else "difference",
        "n": 250 if metric.startswith("general.") else 200 if metric == "perplexity" else 100,
        "change": change,
        "ci": None if ci is None else list(ci),
        "se": None if ci is None else (math.log(ci[1] / ci[0]) if is_ratio else ci[1] - ci[0]) / 3.92,
        "p": p,
        "mde": mde,
        "margin": METRICS[metric]["margin"],
        "test": "McNemar, exact" if metric in _BINARY else "sign-flip permutation",
        "status": status,
        "reason": _REASONS.get((model, metric), "") if status == "not evaluable" else "",
    }


def _figure(value: float, half: float) -> Json:
    return {"value": value, "n": 100, "ci": [value - half, value + half], "se": half / 1.96, "signature": "greedy|v:1"}


def _models() -> Json:
    found: Json = {"base": {}, "lora": {}, "ppo": {}}
    for name, (*values, half) in _VALUES.items():
        for label, value in zip(found, values, strict=True):
            if value is not None:
                found[label][name] = _figure(value, half)
    return found


def _ruled(model: str, text: str, status: str, message: str, severity: str = "hard") -> Json:
    metric = text.split(" ", 1)[0]
    entry = next(
        (compared(*one) for one in _COMPARED if one[:3] == (model, "base", metric)),
        {"model": model, "against": "base", "metric": metric, "change": None, "ci": None, "p": None, "mde": None},
    )
    told = {"rule": {"metric": metric}, "text": text, "severity": severity, "mode": "proven"}
    return {**entry, **told, "status": status, "message": message}


GATE: Json = {
    "mode": "proven",
    "alpha": 0.05,
    "strict": False,
    "exit_code": 6,
    "headline": "GATE FAILED (2 failed, 1 not evaluable, 1 inconclusive, 1 passed): lora: general.nll max_drop 0.02",
    "results": [
        _ruled("lora", "rougeL max_drop 0.01", "passed", "ROUGE-L 0.190 to 0.239: within max_drop 0.01"),
        _ruled("lora", "general.nll max_drop 0.02", "failed", "All probes 1.204 to 1.271: proven worse, and beyond"),
        _ruled("ppo", "general.nll max_drop 0.02", "failed", "All probes 1.204 to 1.302: proven worse, and beyond"),
        _ruled("lora", "exact_match max_drop 0.02", "inconclusive", "Exact match 0.020 to 0.060: neither"),
        _ruled("lora", "empty_rate max 0.05", "failed", "Empty 0.250: proven beyond max 0.05", "soft"),
        _ruled("lora", "judge.llm not worse", "not evaluable", "the judge is unfit"),
    ],
}

_FACTS = {"trainable_share": 0.035, "perf/seconds": 61.2, "perf/peak_memory_bytes": 2 * 2**30, "train/loss": 2.5}
_PPO_FACTS = {
    "perf/seconds": 1834.0,
    "perf/peak_memory_bytes": 5 * 2**30,
    "eval/score_before": -0.6,
    "eval/score_after": 0.01,
    "eval/kl": 1.83,
    "curves": {"train/reward": [[1, -0.6], [2, -0.2], [3, 0.01]]},
}
_BASE = {"ref": "demo:smollm2", "digest": "sha256:11"}
_SETTINGS = {
    "split": "test",
    "metrics": ["perplexity", "rouge", "bleu", "chrf", "exact_match", "health"],
    "max_new_tokens": 128,
    "samples_per_prompt": 1,
    "temperature": 1.0,
    "confidence": 0.95,
    "resamples": 10_000,
    "shown_samples": 3,
    "seed": 0,
}


def _artifact(number: int, ref: str, storage: str, size: int, facts: Json, start: str | None = None) -> Json:
    base = None if number == 11 else _BASE
    digest = f"sha256:{number}"
    return {
        "ref": ref, "digest": digest, "storage": storage, "base": base, "start": start, "bytes": size, "facts": facts,
    }  # fmt: skip


def _judge(metric: str, kind: str, who: str, *, fit: bool, why: str, consistency: float | None) -> Json:
    return {
        "metric": metric,
        "kind": kind,
        "who": who,
        "pairs": 100,
        "consistency": consistency,
        "calibration": None if consistency is None else 0.4,
        "first_share": None if consistency is None else 0.69,
        "failures": 0 if fit else 3,
        "length_controlled": {"lora": 0.51, "ppo": 0.643} if fit else {},
        "length_correlation": 0.31 if fit else None,
        "fit": fit,
        "why": why,
    }


_UNFIT = "position consistency 0.10, at least 0.60 needed"


def rich_result() -> Json:
    """A baseline, an adapter and a policy; the gate failed; one judge fit and one not; two rows leaked nearly."""
    return deepcopy(
        {
            "format": 2,
            "baseline": "base",
            "data": {"ref": "stages/prep/4567/data", "digest": "sha256:33", "split": "test"},
            "rows": {"scored": 200, "answered": 100, "left_out": 3},
            "dtype": "bfloat16",
            "device": "cpu",
            "settings": _SETTINGS,
            "metrics": METRICS,
            "models": _models(),
            "comparisons": [compared(*one) for one in _COMPARED],
            "clean": {
                "rows": 180,
                "comparisons": [
                    compared("lora", "base", "perplexity", 0.381, (0.356, 0.407), 0.0001, 1.1, "improved"),
                    compared("lora", "base", "rougeL", 0.012, (-0.011, 0.036), 0.31, 0.033, "inconclusive"),
                ],
            },
            "gate": GATE,
            "leakage": {
                "checked": [{"label": "lora", "ref": "stages/prep/4567/data", "rows": 10_000}],
                "exact": 0,
                "near": 2,
                "examples": [
                    {"id": "row-4", "train_id": "row-881", "overlap": 0.62, "text": "Open a file with open()"},
                    {"id": "row-9", "train_id": "row-12", "overlap": 0.55, "text": HOSTILE},
                ],
                "unknown": ["ppo: made elsewhere, without a record of its data"],
            },
            "suites": [
                {
                    "name": "general",
                    "version": "1",
                    "digest": "sha256:55",
                    "items": 250,
                    "uninformative": {"general.facts_accuracy": "base at chance (0.27 of 0.25)"},
                }
            ],
            "judges": [
                _judge("judge.reward", "reward", "stages/reward/99/reward", fit=True, why="", consistency=None),
                _judge("judge.llm", "llm", "demo:smollm2", fit=False, why=_UNFIT, consistency=0.1),
            ],
            "work": {
                "base": {"computed": 0, "cached": 300},
                "lora": {"computed": 300, "cached": 0},
                "ppo": {"computed": 200, "cached": 100},
            },
            "reward": {"ref": "stages/reward/99/reward", "digest": "sha256:77", "facts": {}},
            "artifacts": {
                "base": _artifact(11, "demo:smollm2", "full model", 517 * 2**20, {}),
                "lora": _artifact(22, "stages/lora/0123/model", "adapter on nf4 base", 22 * 2**20, _FACTS),
                "ppo": _artifact(44, "stages/ppo/0456/model", "adapter on nf4 base", 22 * 2**20, _PPO_FACTS, "lora"),
            },
        }
    )


LONG = "The function opens the file, reads it line by line, and closes it again when the block ends. " * 60
_ANSWERS = [
    # prompt, reference, base, lora
    ("What does open() do?", "Opens a file and returns it.", "It opens a file and returns it.", HOSTILE),
    (RIGHT_TO_LEFT, "\u0627\u0633\u062a\u0639\u0645\u0644 open().", "open()", "\u0627\u0633\u062a\u0639\u0645\u0644"),
    (CHINESE, "\u7528 open() \u51fd\u6570\u3002", "\u7528 open() \u51fd\u6570\u3002", "\u7528 read() \u65b9\u6cd5\u3002"),
    ("Explain with-blocks at length.", LONG, LONG.replace("reads", "scans"), LONG.replace("again", "for good")),
    ("Which mode appends?", "Mode a.", "The mode w overwrites, the mode a appends.", ""),
    ("Name the flag for bytes.", "The flag is b.", "I do not know.", "The flag is b."),
    ("How is a line read?", "With readline().", "With readline().", "With readlines()."),
    ("What does close() do?", "It frees the file.", "It closes.", "It frees the file."),
    ("Is a file iterable?", "Yes, by line.", "Yes.", "Yes, by line."),
]  # fmt: skip


def rich_samples() -> list[Json]:
    """Nine rows, eight answered; the adapter lost most on row 0, then 4, and the reference's nll most on row 2."""
    overlap = [(0.9, 0.0), (0.8, 0.3), (0.8, 0.5), (0.9, 0.9), (0.6, 0.1), (0.1, 1.0), (1.0, 0.7), (0.2, 1.0)]
    nll = [
        (9.0, 9.5),
        (8.0, 6.0),
        (6.0, 12.0),
        (90.0, 80.0),
        (3.0, 2.0),
        (5.0, 1.0),
        (4.0, 5.5),
        (4.0, 2.0),
        (4.0, 3.0),
    ]
    found = []
    for index, (prompt, reference, *texts) in enumerate(_ANSWERS):
        models: Json = {}
        for place, (label, text) in enumerate(zip(("base", "lora", "ppo"), (*texts, texts[1]), strict=True)):
            side = min(place, 1)
            models[label] = {"reference_nll": nll[index][side], "reference_tokens": 4}
            if index < len(overlap):
                metrics = {"rougeL": overlap[index][side], "chrf": 100 * overlap[index][side]}
                models[label]["greedy"] = {
                    "text": text, "finish_reason": "length" if index == 3 else "stop", "tokens": len(text.split()),
                    "metrics": metrics,
                }  # fmt: skip
        messages = [{"role": "user", "content": prompt}]
        found.append({"id": f"row-{index}", "prompt": messages, "reference": reference, "models": models})
    return found


def only(result: Json, labels: tuple[str, ...]) -> Json:
    """``result`` of some of its models, as if the others had not been measured."""
    kept = dict(result)
    for part in ("models", "artifacts", "work"):
        kept[part] = {label: value for label, value in result[part].items() if label in labels}
    kept["comparisons"] = [one for one in result["comparisons"] if {one["model"], one["against"]} <= set(labels)]
    return kept


def small_result() -> Json:
    """Two models and five metrics, with neither gate, leakage check, suite nor judge."""
    names = ("perplexity", "rougeL", "exact_match", "empty_rate", "mean_length")
    result = only(rich_result(), ("base", "lora"))
    result |= {"clean": None, "gate": None, "leakage": None, "suites": [], "judges": [], "reward": None}
    result["metrics"] = {name: METRICS[name] for name in names}
    result["models"] = {
        label: {name: own[name] for name in names if name in own} for label, own in result["models"].items()
    }
    result["comparisons"] = [one for one in result["comparisons"] if one["metric"] in names]
    return result


def small_samples(answer: str = "An answer.") -> list[Json]:
    """Nine rows, eight of them answered, by two models alike."""
    greedy = {"text": answer, "finish_reason": "length", "tokens": 7, "metrics": {"rougeL": 0.2}}
    return [
        {
            "id": f"row-{index}",
            "prompt": [{"role": "user", "content": f"Question {index}?"}],
            "reference": f"Reference {index}.",
            "models": {label: {"greedy": greedy} if index < 8 else {} for label in ("base", "lora")},
        }
        for index in range(9)
    ]
