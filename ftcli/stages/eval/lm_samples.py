"""From lm-evaluation-harness's logged samples to figures: one row an example, so that models are compared in pairs.

The harness keeps, for each row and metric, what its aggregation takes: a number, or a pair such as log-likelihood and words. Those
aggregations that are functions of column sums are rebuilt here, and each must give the harness's own value; a metric that is
aggregated otherwise (a median, Matthews's correlation) has no figure, and a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ftcli.metrics.figures import Figure, Figures
from ftcli.metrics.names import Metric
from ftcli.metrics.statistics import Examples, mean_of
from ftcli.metrics.text import TextScore, bleu, chrf, ter

SHARES = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"}
"""Metrics of the harness's whose value of a row is yes or no."""


@dataclass(frozen=True)
class Answered:
    """A task that was run: its rows as logged, the harness's values ``{"acc,none": ...}`` and which way is better."""

    name: str
    task: Any
    samples: Sequence[Mapping[str, Any]]
    values: Mapping[str, Any]
    higher_is_better: Mapping[str, bool | None]
    signature: str
    comparable: str


@dataclass(frozen=True)
class TaskFigures:
    figures: Figures = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def figures_of_task(answered: Answered) -> TaskFigures:
    """A figure for each metric and filter, ``lm_eval.<task>.<metric>``, with ``.<filter>`` where the task has one of its own."""
    found = TaskFigures()
    aggregations = answered.task.aggregation()
    for key, value in answered.values.items():
        metric, _, filter = key.partition(",")
        if metric.endswith("_stderr") or metric not in aggregations:
            continue
        name = f"lm_eval.{answered.name}.{metric}" + ("" if filter == "none" else f".{filter}")
        rows = [sample for sample in answered.samples if sample["filter"] == filter and metric in sample]
        figure = _figure(name, metric, aggregations[metric], rows, answered)
        if figure is not None and math.isclose(figure.value(), float(value), rel_tol=1e-6, abs_tol=1e-9):
            found.figures[name] = figure
        else:
            how = getattr(aggregations[metric], "__name__", "its own")
            found.notes.append(
                f"{name} is {value}, without interval or comparison: its aggregation ({how}) has no sums over rows"
            )
    return found


def figures_of_group(name: str, values: Mapping[str, Any], members: Mapping[str, Figures]) -> Figures:
    """The group's metrics that are the plain mean over the rows of all ``members``; none for a group without such."""
    found: Figures = {}
    for key, value in values.items():
        metric, _, filter = key.partition(",")
        suffix = metric + ("" if filter == "none" else f".{filter}")
        parts = [(task, figures.get(f"lm_eval.{task}.{suffix}")) for task, figures in members.items()]
        own = [(task, part) for task, part in parts if part is not None]
        if metric.endswith("_stderr") or not own or len(own) < len(parts):
            continue
        first = own[0][1]
        if any(part.metric.is_ratio or part.examples.kind != "quotient" for _, part in own):
            continue
        pooled = Figure(
            f"lm_eval.{name}.{suffix}",
            Metric(
                f"{name} {metric}",
                "lm_eval",
                first.metric.higher_is_better,
                3,
                f"lm-evaluation-harness, group {name}, {len(own)} tasks, mean over their rows",
                is_share=all(part.metric.is_share for _, part in own),
                margin=first.metric.margin,
            ),
            Examples(np.concatenate([part.examples.statistics for _, part in own])),
            tuple(f"{task}/{row}" for task, part in own for row in part.ids),
            "; ".join(dict.fromkeys(part.signature for _, part in own)),
            first.comparable,
        )
        if math.isclose(pooled.value(), float(value), rel_tol=1e-6, abs_tol=1e-9):
            found[pooled.name] = pooled
    return found


def _figure(
    name: str, metric: str, aggregation: Callable[..., Any], rows: Sequence[Mapping[str, Any]], answered: Answered
) -> Figure | None:
    """None where ``aggregation`` cannot be rebuilt from sums over rows."""
    how = getattr(aggregation, "__name__", "")
    values = [row[metric] for row in rows]
    try:
        examples, signature = _examples(how, values)
    except (TypeError, ValueError, IndexError):  # values of another shape than the aggregation's name promises
        return None
    if examples is None or not rows:
        return None
    is_ratio = how in ("perplexity", "weighted_perplexity")
    described = Metric(
        f"{answered.name} {metric}",
        "lm_eval",
        answered.higher_is_better.get(metric),
        2 if is_ratio or how in _CORPUS else 3,
        f"lm-evaluation-harness, task {answered.name}, {metric}",
        is_share=metric in SHARES and {float(value) for value in values} <= {0.0, 1.0},
        is_ratio=is_ratio,
        margin=_margin(metric, how),
    )
    ids = tuple(f"{row['doc_id']}-{row['doc_hash'][:12]}" for row in rows)
    return Figure(name, described, examples, ids, "|".join([answered.signature, *signature]), answered.comparable)


def _examples(how: str, values: Sequence[Any]) -> tuple[Examples | None, list[str]]:
    """The statistics behind the harness's aggregation of that name, and what they add to the signature."""
    if how == "mean":
        return mean_of([float(value) for value in values]), []
    if how == "perplexity":
        return mean_of([-float(value) for value in values]), []
    if how in ("weighted_perplexity", "bits_per_byte"):
        unit = math.log(2) if how == "bits_per_byte" else 1.0
        return Examples(np.asarray([(-float(loss) / unit, float(weight)) for loss, weight in values])), []
    if how in _CORPUS:
        references, answers = zip(*values, strict=True)
        score = _CORPUS[how]([_one(answer) for answer in answers], [_one(reference) for reference in references])
        return score.examples, [score.signature]
    return None, []


_CORPUS: dict[str, Callable[..., TextScore]] = {
    "bleu": bleu,
    "chrf": partial(chrf, word_order=0),
    "chrfpp": chrf,
    "ter": ter,
}


def _one(texts: Any) -> str:
    """The text itself or the only one of a list. Raises `ValueError` for several references."""
    if isinstance(texts, str):
        return texts
    (text,) = texts
    return str(text)


def _margin(metric: str, how: str) -> float | None:
    """As in `ftcli.metrics.names`, for the metrics whose scale is known."""
    if metric in SHARES or how == "bits_per_byte":
        return 0.01
    return {"perplexity": 1.02, "weighted_perplexity": 1.02, "bleu": 0.5, "chrf": 0.5, "chrfpp": 0.5, "ter": 1.0}.get(
        how
    )
