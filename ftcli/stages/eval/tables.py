"""Figures as text: how a number is printed, and the short table of the whole result. Needs metrics.json only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ftcli.metrics.names import METRICS

HEADLINE = ("perplexity", "rougeL", "bleu", "chrf", "exact_match", "reward_sampled")
NOISE = "≈"
"""Stands behind a value whose difference from the baseline is within noise."""
NONE = "-"
TIMES = "\u00d7"

Json = Mapping[str, Any]


def number(metric: str, value: float | None) -> str:
    return NONE if value is None else f"{value:.{METRICS[metric].decimals}f}"


def signed(metric: str, value: float | None) -> str:
    return NONE if value is None else f"{value:+.{METRICS[metric].decimals}f}"


def change(entry: Json) -> str:
    """``+0.112 [+0.080, +0.141]``, or for a ratio ``0.37 times [0.35, 0.40]``."""
    if entry["change"] is None:
        return NONE
    is_ratio = entry["scale"] == "ratio"

    def one(value: float) -> str:
        return f"{value:.3f}" if is_ratio else signed(entry["metric"], value)

    interval = f" [{one(entry['ci'][0])}, {one(entry['ci'][1])}]" if entry["ci"] else ""
    return f"{TIMES if is_ratio else ''}{one(entry['change'])}{interval}"


def size(count: float | None) -> str:
    if count is None:
        return NONE
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.{1 if count < 100 * scale else 0}f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{seconds:.1f} s"
    )


def share(value: float | None) -> str:
    return NONE if value is None else f"{value:.2%}" if value < 0.1 else f"{value:.0%}"


def comparison(result: Json, model: str, metric: str, against: str | None = None) -> Json | None:
    """The comparison of ``model`` with the baseline (or ``against``), if there is one."""
    other = against or result["baseline"]
    wanted = (model, other, metric)
    return next(
        (item for item in result["comparisons"] if (item["model"], item["against"], item["metric"]) == wanted), None
    )


def measured_names(result: Json, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that were measured."""
    first = next(iter(result["models"].values()))
    return [name for name in names if name in first]


def cell(result: Json, model: str, metric: str) -> str:
    """A value, with its standard error for rewards, and marked where it differs from the baseline by noise only."""
    found = result["models"][model][metric]
    text = number(metric, found["value"])
    if METRICS[metric].family == "reward" and found["se"] is not None:
        text += f" ± {number(metric, found['se'])}"
    against = comparison(result, model, metric)
    return f"{text} {NOISE}" if against and against["verdict"] == "within noise" else text


COSTS = {
    "Trained": lambda artifact: share(artifact["facts"].get("trainable_share")),
    "Training": lambda artifact: duration(artifact["facts"].get("perf/seconds")),
    "Peak memory": lambda artifact: size(artifact["facts"].get("perf/peak_memory_bytes")),
    "On disk": lambda artifact: size(artifact["bytes"]),
}
"""What making a model took: share of the weights trained, training time, the worker's peak memory, its folder's size."""


def short_table(result: Json) -> list[list[str]]:
    """The result in one table, the header first: a row for each model."""
    names = measured_names(result, HEADLINE)
    header = ["Model", *(METRICS[name].title for name in names), *COSTS]
    rows = [
        [
            label,
            *(cell(result, label, name) for name in names),
            *(cost(result["artifacts"][label]) for cost in COSTS.values()),
        ]
        for label in result["models"]
    ]
    return [header, *rows]


def legend(result: Json) -> str:
    rows = result["rows"]
    return (
        f"{rows['scored']} rows scored, {rows['answered']} answered; {NOISE} within noise of {result['baseline']} "
        f"(permutation p ≥ {1 - result['settings']['confidence']:.2g})"
    )


def markdown(table: Sequence[Sequence[str]], note: str) -> str:
    """``table`` in Markdown with ``note`` under it. Bars in a label would end a cell."""
    lines = ["| " + " | ".join(item.replace("|", "\\|") for item in row) + " |" for row in table]
    rule = "| " + " | ".join(["---"] + ["---:"] * (len(table[0]) - 1)) + " |"
    return "\n".join([lines[0], rule, *lines[1:], "", note, ""])
