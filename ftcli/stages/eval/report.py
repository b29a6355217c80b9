"""report.html from the content of metrics.json and samples.jsonl: one file, no script, no network, light and dark.

Everything that a model, a data set or a user wrote is escaped by the template engine, control and direction characters are shown as
what they are, and a content security policy forbids scripts and loading of anything, in case something slips through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ftcli import __version__
from ftcli.metrics import plots
from ftcli.metrics.names import METRICS
from ftcli.metrics.pages import page_style, visible
from ftcli.metrics.plots import Point
from ftcli.stages.eval import tables
from ftcli.stages.eval.tables import COSTS, HEADLINE, comparison, measured_names

Json = Mapping[str, Any]
HEALTH = ("empty_rate", "hit_max_rate", "repetition_rate", "mean_length")
PLOTTED = ("perplexity", "rougeL", "chrf", "reward_sampled")
POLICY_FACTS = {
    "eval/score_before": "Mean score before",
    "eval/score_after": "Mean score after",
    "eval/score_change": "Change",
    "eval/score_change_se": "Standard error of the change",
    "eval/score_change_z": "Change in standard errors",
    "eval/kl": "KL from the start, nats an answer",
    "eval/length_before": "Tokens an answer before",
    "eval/length_after": "Tokens an answer after",
}
"""What the ppo stage measures on its own held-out prompts, sampled, and how the report calls it."""


def render_report(result: Json, samples: Sequence[Json]) -> str:
    """The page, from what `ftcli.stages.eval.write` puts into metrics.json and samples.jsonl."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["visible"] = visible
    source = resources.files("ftcli.stages.eval").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        result=result,
        version=__version__,
        style=page_style(),
        names={name: METRICS[name] for name in METRICS},
        summary=summary(result),
        headline=headline(result),
        legend=tables.legend(result),
        charts=charts(result),
        differences=differences(result),
        health=health(result),
        policies=policies(result),
        samples=chosen(samples, result["rows"]["answered"], result["settings"]["shown_samples"]),
        provenance=provenance(result),
        confidence=f"{result['settings']['confidence']:.0%}",
    )


def summary(result: Json) -> list[dict[str, Any]]:
    """For each model but the baseline the number of headline metrics that are better, worse and within noise."""
    found = []
    for label in list(result["models"])[1:]:
        entries = [comparison(result, label, name) for name in measured_names(result, HEADLINE)]
        verdicts = [entry["verdict"] for entry in entries if entry]
        counts = {name.removeprefix("within "): verdicts.count(name) for name in ("better", "worse", "within noise")}
        found.append({"label": label, "of": len(verdicts), **counts})
    return found


def headline(result: Json) -> dict[str, Any]:
    """The short table with the verdict of each cell."""
    table = tables.short_table(result)
    names = measured_names(result, HEADLINE)
    rows = []
    for label, row in zip(result["models"], table[1:], strict=True):
        found = [comparison(result, label, name) for name in names]
        verdicts = ["", *((item["verdict"] if item else "") for item in found), *[""] * len(COSTS)]
        rows.append([{"text": text, "verdict": verdict} for text, verdict in zip(row, verdicts, strict=True)])
    return {"header": table[0], "rows": rows}


def charts(result: Json) -> list[dict[str, Any]]:
    """Quality with intervals, cost of each technique, and curves where a model's stage left some."""
    found = [quality_chart(result, name) for name in measured_names(result, PLOTTED)]
    for title, name, shown in (
        ("Training time", "perf/seconds", tables.duration),
        ("Peak memory while training", "perf/peak_memory_bytes", tables.size),
    ):
        points = [
            Point(label, artifact["facts"][name], None, None, shown(artifact["facts"][name]))
            for label, artifact in result["artifacts"].items()
            if artifact["facts"].get(name) is not None
        ]
        if points:
            found.append({"title": title, "note": "as its stage measured", "svg": Markup(plots.bars(points))})
    sizes = [
        Point(label, item["bytes"], None, None, tables.size(item["bytes"]), label == result["baseline"])
        for label, item in result["artifacts"].items()
    ]
    found.append({"title": "Size on disk", "note": "an adapter without its base", "svg": Markup(plots.bars(sizes))})
    return found + curves(result)


def quality_chart(result: Json, name: str) -> dict[str, Any]:
    points = []
    for label, figures in result["models"].items():
        figure = figures[name]
        low, high = figure["ci"] or (None, None)
        note = tables.cell(result, label, name)
        points.append(Point(label, figure["value"], low, high, note, label == result["baseline"]))
    metric = METRICS[name]
    better = "higher is better" if metric.higher_is_better else "lower is better"
    return {"title": metric.title, "note": better, "svg": Markup(plots.dots(points, log=metric.is_ratio))}


def curves(result: Json) -> list[dict[str, Any]]:
    """Facts named ``curves``, ``{metric: [[step, value], ...]}``: one plot for each metric, one line for each model."""
    series: dict[str, dict[str, Any]] = {}
    for label, artifact in result["artifacts"].items():
        for name, values in artifact["facts"].get("curves", {}).items():
            series.setdefault(name, {})[label] = values
    return [
        {"title": name, "note": "by step", "svg": Markup(plots.lines(found, x_label="step", y_label=name))}
        for name, found in series.items()
    ]


def differences(result: Json) -> dict[str, Any]:
    """One table of all comparisons: rows metrics, columns ``model`` against ``against``."""
    columns = list(dict.fromkeys((entry["model"], entry["against"]) for entry in result["comparisons"]))
    rows = []
    for name in dict.fromkeys(entry["metric"] for entry in result["comparisons"]):
        found = [comparison(result, model, name, against) for model, against in columns]
        cells = [{"text": tables.change(entry), **entry} for entry in found if entry]
        rows.append({"name": name, "cells": cells})
    return {"columns": columns, "rows": rows}


def health(result: Json) -> list[dict[str, Any]]:
    """Health metrics by model, none if they were not asked for."""
    names = measured_names(result, HEALTH)
    return [{"name": name, "cells": [tables.cell(result, label, name) for label in result["models"]]} for name in names]


def policies(result: Json) -> list[dict[str, Any]]:
    """Models made by reinforcement: rewards against the policy they started from, and what their own stage measured."""
    found = []
    for label, artifact in result["artifacts"].items():
        facts = [(title, artifact["facts"][name]) for name, title in POLICY_FACTS.items() if name in artifact["facts"]]
        if not facts:
            continue
        start = artifact["start"]
        rewards = [
            {"title": METRICS[name].title, "text": tables.change(entry), **entry}
            for name in measured_names(result, ("reward_sampled", "reward_greedy"))
            if start and (entry := comparison(result, label, name, start))
        ]
        found.append({"label": label, "start": start, "rewards": rewards, "facts": facts})
    return found


def chosen(samples: Sequence[Json], answered: int, count: int) -> list[Json]:
    """``count`` answered rows at even distances: nobody picked them."""
    having = list(samples[:answered])
    count = min(count, len(having))
    if count == 0 or not any("greedy" in own for own in having[0]["models"].values()):
        return []
    return [having[place * len(having) // count] for place in range(count)]


def provenance(result: Json) -> list[dict[str, Any]]:
    """Each model's origin and every plain fact of its making."""
    return [
        {
            "label": label,
            **{name: artifact[name] for name in ("ref", "digest", "storage", "base")},
            "facts": {
                name: value for name, value in sorted(artifact["facts"].items()) if isinstance(value, int | float | str)
            },
        }
        for label, artifact in result["artifacts"].items()
    ]
