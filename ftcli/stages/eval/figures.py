"""From outcomes to figures: every metric with its interval, every model against the baseline, as the JSON of metrics.json.

``models``       {label: {metric: {value, n, ci, se, higher_is_better, signature}}}
``comparisons``  [{model, against, metric, scale, change, ci, se, p, n, verdict}]; ``scale`` is ``difference`` or ``ratio``
``artifacts``    {label: {ref, digest, storage, base, bytes, facts}}

A verdict is ``better`` or ``worse`` (``different`` where no direction is good) when the permutation p is below one minus the
confidence, else ``within noise``; intervals are for reading. ``not comparable`` means that two tokenizers cut the references into
different numbers of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ftcli.core.artifacts import walk
from ftcli.core.stage import Artifact
from ftcli.metrics import statistics
from ftcli.metrics.health import health
from ftcli.metrics.hf import TEXT_METRICS
from ftcli.metrics.names import METRICS
from ftcli.metrics.perplexity import AnswerScore, log_perplexity
from ftcli.metrics.statistics import Examples, mean_of
from ftcli.models.load import read_base_record
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.outcome import Outcome

Json = dict[str, Any]


class Figure(NamedTuple):
    """One metric of one model, with what its spread is computed from."""

    examples: Examples
    signature: str


def collect(
    outcomes: Mapping[str, Outcome],
    references: Sequence[str],
    config: EvalConfig,
    *,
    models: Sequence[Artifact],
    reward: Artifact | None,
    about: Mapping[str, Any],
) -> Json:
    """The content of metrics.json. ``references`` are those of all scored rows, of which the first are the answered ones."""
    figures = {label: figures_of(outcome, references, config) for label, outcome in outcomes.items()}
    baseline = models[0].label
    pairs = [(item.label, baseline) for item in models[1:]]
    starts = [(item.label, start.label) for item in models if (start := start_of(item, models)) is not None]
    pairs += [pair for pair in starts if pair not in pairs]
    comparisons = [
        compared(model, against, name, figures[against][name], figure, config)
        for model, against in pairs
        for name, figure in figures[model].items()
    ]
    return {
        "format": 1,
        "baseline": baseline,
        **about,
        "settings": config.model_dump(mode="json"),
        "reward": None if reward is None else {"ref": reward.ref, "digest": reward.digest, "facts": dict(reward.facts)},
        "models": {
            label: {name: described(name, figure, config) for name, figure in own.items()}
            for label, own in figures.items()
        },
        "comparisons": comparisons,
        "artifacts": {artifact.label: described_artifact(artifact, models) for artifact in models},
    }


def start_of(artifact: Artifact, models: Sequence[Artifact]) -> Artifact | None:
    """The model among ``models`` that ``artifact`` was trained from, by the digest its stage recorded."""
    digest = artifact.facts.get("start_digest")
    return next((item for item in models if item.digest == digest and item.label != artifact.label), None)


def figures_of(outcome: Outcome, references: Sequence[str], config: EvalConfig) -> dict[str, Figure]:
    """Every metric that was asked for, in the order of `ftcli.metrics.names.METRICS`."""
    found: dict[str, Figure] = {}
    if outcome.nll:
        scores = [AnswerScore(nll, tokens) for nll, tokens in zip(outcome.nll, outcome.tokens, strict=True)]
        found["perplexity"] = Figure(
            log_perplexity(scores), f"completion|chat template|end of turn|{len(scores)} answers"
        )
    texts = [answer.text for answer in outcome.greedy]
    for family in config.metrics:
        if family in TEXT_METRICS:
            settings = {"tokenizer": config.rouge_tokenizer} if family == "rouge" else {}
            scored = TEXT_METRICS[family](keep_in_memory=True).score(texts, references[: len(texts)], **settings)
            found.update({name: Figure(score.examples, score.signature) for name, score in scored.items()})
    if "health" in config.metrics:
        reasons = [answer.finish_reason for answer in outcome.greedy]
        values = health(texts, [answer.ids for answer in outcome.greedy], reasons)
        greedy = f"greedy|max {config.max_new_tokens} tokens"
        found.update({name: Figure(mean_of(each), greedy) for name, each in values.items()})
    if outcome.sampled_scores:
        repeats = config.samples_per_prompt
        drawn = f"temperature {config.temperature:g}|{repeats} a prompt|seed {config.seed}"
        found["reward_sampled"] = Figure(mean_of(means(outcome.sampled_scores, repeats)), drawn)
        found["reward_greedy"] = Figure(mean_of(outcome.greedy_scores), "greedy")
    return {name: found[name] for name in METRICS if name in found}


def means(values: Sequence[float], size: int) -> list[float]:
    """Means of consecutive groups of ``size``: samples of one prompt are no independent examples."""
    return [sum(values[first : first + size]) / size for first in range(0, len(values), size)]


def described(name: str, figure: Figure, config: EvalConfig) -> Json:
    """One entry of ``models``. A ratio metric's error is on the log scale, which is about relative."""
    metric, examples = METRICS[name], figure.examples
    value, n = examples.value(), len(examples)
    if metric.is_share:
        low, high = statistics.wilson(round(value * n), n, config.confidence)
    else:
        low, high = statistics.interval(
            examples, confidence=config.confidence, resamples=config.resamples, seed=config.seed
        )
    return {
        "value": shown(name, value),
        "n": n,
        "ci": bounds(name, low, high),
        "se": finite(statistics.standard_error(examples)),
        "higher_is_better": metric.higher_is_better,
        "signature": figure.signature,
    }


def compared(model: str, against: str, name: str, first: Figure, second: Figure, config: EvalConfig) -> Json:
    """``second`` (of ``model``) against ``first`` (of ``against``) on the same rows."""
    entry: Json = {
        "model": model,
        "against": against,
        "metric": name,
        "scale": "ratio" if METRICS[name].is_ratio else "difference",
        "n": len(second.examples),
    }
    if name == "perplexity" and (first.examples.statistics[:, 1] != second.examples.statistics[:, 1]).any():
        return {**entry, "change": None, "ci": None, "se": None, "p": None, "verdict": "not comparable"}
    found = statistics.difference(
        first.examples, second.examples, confidence=config.confidence, resamples=config.resamples, seed=config.seed
    )
    return {
        **entry,
        "change": shown(name, found.delta),
        "ci": bounds(name, found.low, found.high),
        "se": finite(found.se),
        "p": finite(found.p),
        "verdict": verdict(name, found.delta, found.p, 1 - config.confidence),
    }


def verdict(name: str, delta: float, p: float, alpha: float) -> str:
    """One rule decides: the p-value. With one row there is none, and nothing can be told."""
    if not p < alpha:
        return "within noise"
    higher_is_better = METRICS[name].higher_is_better
    if higher_is_better is None:
        return "different"
    return "better" if (delta > 0) == higher_is_better else "worse"


def shown(name: str, value: float) -> float:
    """Ratio metrics are computed as logarithms."""
    return math.exp(value) if METRICS[name].is_ratio else value


def bounds(name: str, low: float, high: float) -> list[float] | None:
    return None if math.isnan(low) else [shown(name, low), shown(name, high)]


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def described_artifact(artifact: Artifact, models: Sequence[Artifact]) -> Json:
    """Where a model came from and what making it took. ``bytes`` is its own folder: for an adapter, without its base."""
    quantization = read_base_record(artifact.path).get("quantization") if artifact.base is not None else None
    start = start_of(artifact, models)
    storage = "full model" if artifact.base is None else f"adapter on {quantization or 'unquantised'} base"
    return {
        "ref": artifact.ref,
        "digest": artifact.digest,
        "storage": storage,
        "base": None if artifact.base is None else {"ref": artifact.base.ref, "digest": artifact.base.digest},
        "start": None if start is None else start.label,
        "bytes": artifact.facts.get("bytes") or sum(path.stat().st_size for path in walk(artifact.path)),
        "facts": {name: value for name, value in artifact.facts.items() if name != "bytes"},
    }
