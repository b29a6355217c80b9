"""report.html from the content of metrics.json and samples.jsonl: one file, no network, light and dark, for screen and paper.

Everything that a model, a data set or a user wrote is escaped by the template engine, control and direction characters are shown as
what they are, and a content security policy lets run the page's own script alone, which sorts tables, and forbids loading anything.
Without scripts the page lacks the sorting only.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ftcli import __version__
from ftcli.metrics import plots
from ftcli.metrics.pages import page_style, visible
from ftcli.metrics.plots import Point
from ftcli.stages.eval import panels, tables
from ftcli.stages.eval.losses import shown_rows
from ftcli.stages.eval.tables import compared_models, headline, measured
from ftcli.stages.eval.verdict import LEVELS, banner, power, standings

Json = Mapping[str, Any]
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
MOST_CHARTS = 12


def render_report(result: Json, samples: Sequence[Json]) -> str:
    """The page, from what `ftcli.stages.eval.write` puts into metrics.json and samples.jsonl."""
    environment = Environment(
        loader=PackageLoader("ftcli.stages.eval", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    script = resources.files("ftcli.stages.eval").joinpath("report.js").read_text(encoding="utf-8")
    others = compared_models(result)
    return environment.get_template("report.html").render(
        result=result,
        metrics=result["metrics"],
        others=others,
        version=__version__,
        style=page_style(),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        levels=LEVELS,
        marks=tables.MARKS,
        banner=banner(result),
        standings=standings(result),
        power=power(result),
        forests=panels.forests(result),
        figures=panels.figures(result),
        legend=tables.marks(result),
        charts=level_charts(result),
        suites=panels.suites(result),
        health=panels.matrix(result, measured(result, tables.HEALTH)),
        rows={label: shown_rows(result, samples, label) for label in others or [result["baseline"]]},
        judges=panels.judges(result),
        clean=panels.clean(result),
        costs=panels.costs(result),
        cost_charts=cost_charts(result),
        curves=curves(result),
        policies=policies(result),
        provenance=provenance(result),
        signatures=signatures(result),
        versions=result.get("versions", {}),
        confidence=f"{result['settings']['confidence']:.0%}",
    )


def _printable(value: Any) -> Any:
    """Everything printed passes here before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def level_charts(result: Json) -> list[dict[str, Any]]:
    """Each headline metric's value by model with its interval, where there are several models to compare."""
    found = []
    for name in headline(result)[:MOST_CHARTS] if len(result["models"]) > 2 else ():
        metric, points = result["metrics"][name], []
        for label, own in result["models"].items():
            if name in own and own[name]["value"] is not None:
                low, high = own[name]["ci"] or (None, None)
                note = tables.cell(result, label, name)
                points.append(Point(visible(label), own[name]["value"], low, high, note, label == result["baseline"]))
        is_log = metric["is_ratio"] and all(point.value > 0 for point in points)
        better = {True: "higher is better", False: "lower is better", None: ""}[metric["higher_is_better"]]
        if len(points) > 1:
            svg = Markup(plots.dots(points, log=is_log))
            found.append({"title": metric["title"], "note": better, "svg": svg})
    return found


def cost_charts(result: Json) -> list[dict[str, Any]]:
    found = []
    for title in ("Training time", "Peak memory", "On disk"):
        cost, text = tables.COSTS[title]
        points = [
            Point(visible(label), value, None, None, text(value), label == result["baseline"])
            for label, artifact in result["artifacts"].items()
            if (value := cost(artifact)) is not None
        ]
        if len(points) > 1:
            found.append({"title": title, "note": "", "svg": Markup(plots.bars(points))})
    return found


def curves(result: Json) -> list[dict[str, Any]]:
    """Facts named ``curves``, ``{metric: [[step, value], ...]}``: one plot for each metric, one line for each model."""
    series: dict[str, dict[str, Any]] = {}
    for label, artifact in result["artifacts"].items():
        for name, values in artifact["facts"].get("curves", {}).items():
            series.setdefault(name, {})[visible(label)] = values
    return [
        {"title": name, "note": "by step", "svg": Markup(plots.lines(found, x_label="step", y_label=name))}
        for name, found in series.items()
    ]


def policies(result: Json) -> list[dict[str, Any]]:
    """Models made by reinforcement: rewards against the policy they started from, and what their own stage measured."""
    found = []
    for label, artifact in result["artifacts"].items():
        facts = [
            (title, "-" if artifact["facts"][name] is None else f"{artifact['facts'][name]:.3g}")
            for name, title in POLICY_FACTS.items()
            if name in artifact["facts"]
        ]
        start = artifact["start"]
        if facts:
            names = measured(result, ("reward_sampled", "reward_greedy"))
            rewards = [row for name in names if start and (row := panels.compared(result, label, name, start))]
            found.append({"label": label, "start": start, "rewards": rewards, "facts": facts})
    return found


def provenance(result: Json) -> list[dict[str, Any]]:
    """Each model's origin and every plain fact of its making."""
    return [
        {
            "label": label,
            "work": result["work"].get(label),
            **{name: artifact[name] for name in ("ref", "digest", "storage", "base")},
            "facts": {
                name: value for name, value in sorted(artifact["facts"].items()) if isinstance(value, int | float | str)
            },
        }
        for label, artifact in result["artifacts"].items()
    ]


def signatures(result: Json) -> dict[str, Json]:
    """How each metric was computed, as the first model that has it says."""
    found: dict[str, Json] = {}
    for own in result["models"].values():
        for name, figure in own.items():
            found.setdefault(name, figure)
    return found
