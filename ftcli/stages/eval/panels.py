"""The page's tables and forests as plain data for its template: every text that is shown, and the status it is coloured by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from ftcli.metrics.forest import forest_row, reach
from ftcli.stages.eval import tables
from ftcli.stages.eval.tables import HEALTH, Json, compared_models, comparison, headline, measured, number

CONTINUOUS = ("_nll", "_bpb")
ACCURACY = "_accuracy"


def compared(result: Json, model: str, name: str, against: str | None = None) -> dict[str, Any] | None:
    """One comparison in words, with its drawing where it has an interval."""
    entry = comparison(result, model, name, against)
    return None if entry is None else described(result, entry)


def described(result: Json, entry: Json) -> dict[str, Any]:
    metric = result["metrics"][entry["metric"]]
    facts = [f"n {entry['n']}"]
    if entry["p"] is not None:
        facts.append(f"p {chance(entry['p'])}")
    if entry["status"] == "inconclusive" and tables.detectable(entry, metric) != tables.NONE:
        facts.append(f"would show {tables.detectable(entry, metric)}")
    return {
        "name": entry["metric"],
        "title": metric["title"],
        "text": tables.change(entry, metric),
        "status": entry["status"],
        "reason": entry["reason"],
        "facts": " · ".join(facts),
        "svg": drawing(entry, metric),
        "order": order(entry, metric),
    }


def chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def drawing(entry: Json, metric: Json) -> Markup | None:
    """A row of the forest, better to the right; where no direction is good, more to the right."""
    found = tables.oriented(entry, metric)
    if found is None:
        return None
    change, low, high = found
    is_ratio, margin = entry["scale"] == "ratio", entry.get("margin")
    if is_ratio and margin is not None:
        margin = math.log(margin)
    half = reach(low, high, margin, is_log=is_ratio)
    sign = -1.0 if metric["higher_is_better"] is False else 1.0
    ends = [f"{tables.TIMES}{math.exp(end):.3g}" if is_ratio else f"{end:+.3g}" for end in (-sign * half, sign * half)]
    label = f"{metric['title']}: {tables.change(entry, metric)}, {entry['status']}"
    return forest_row(change, low, high, half=half, margin=margin, ends=(ends[0], ends[1]), label=label)


def order(entry: Json, metric: Json) -> float | None:
    """What a model's column is sorted by: the oriented change in half-widths of its interval, so that sure losses come first."""
    found = tables.oriented(entry, metric)
    if found is None or metric["higher_is_better"] is None:
        return None
    change, low, high = found
    return change / ((high - low) / 2) if high > low else math.copysign(1e9, change) if change else 0.0


def forests(result: Json) -> list[dict[str, Any]]:
    """For each pair that was compared its headline metrics, and the others behind them."""
    first = [*headline(result), *measured(result, HEALTH)]
    found = []
    for model, against in dict.fromkeys((one["model"], one["against"]) for one in result["comparisons"]):
        rows = {name: row for name in result["metrics"] if (row := compared(result, model, name, against))}
        top = [rows.pop(name) for name in dict.fromkeys(first) if name in rows]
        loud = [name for name, row in rows.items() if row["status"] == "regressed"]
        top += [rows.pop(name) for name in loud]
        found.append({"model": model, "against": against, "rows": top, "more": list(rows.values())})
    return found


def matrix(result: Json, names: Iterable[str]) -> list[dict[str, Any]]:
    """Metrics by model: the value, and what its comparison with the baseline found."""
    return [
        {"name": name, **{key: result["metrics"][name][key] for key in ("title", "help", "family")},
         "cells": [_cell(result, label, name) for label in _labels(result)]}
        for name in names
    ]  # fmt: skip


def _labels(result: Json) -> list[str]:
    return [result["baseline"], *compared_models(result)]


def _cell(result: Json, model: str, name: str) -> dict[str, Any]:
    metric, own = result["metrics"][name], result["models"][model].get(name)
    text = tables.NONE if own is None else number(metric, own["value"])
    bounds = own["ci"] if own else None
    interval = f"[{', '.join(number(metric, value) for value in bounds)}]" if bounds else ""
    return {"text": text, "interval": interval, "compared": compared(result, model, name)}


def figures(result: Json) -> list[dict[str, Any]]:
    """Every metric that any model has."""
    return matrix(result, measured(result, result["metrics"]))


def suites(result: Json) -> list[dict[str, Any]]:
    """Each suite's probes, the continuous loss and the accuracy of one probe in one row, and how far each model moved."""
    found = []
    for suite in result["suites"]:
        names = measured(result, [name for name in result["metrics"] if name.startswith(f"{suite['name']}.")])
        probes: dict[str, dict[str, Any]] = {}
        moved = []
        for row in matrix(result, names):
            if row["name"] == f"{suite['name']}.kl":
                moved.append(row)
                continue
            stem, side = _probe(row["name"])
            probe = probes.setdefault(stem, {"title": row["title"], "loss": None, "accuracy": None, "flags": []})
            probe[side] = row
            if side == "loss":
                probe["title"] = row["title"]
            if row["name"] in suite["uninformative"]:
                row["flag"] = suite["uninformative"][row["name"]]
                probe["flags"].append(row["flag"])
        found.append({**suite, "probes": list(probes.values()), "moved": moved})
    return found


def _probe(name: str) -> tuple[str, str]:
    """``general.facts_accuracy`` as the accuracy of ``general.facts``."""
    if name.endswith(ACCURACY):
        return name.removesuffix(ACCURACY), "accuracy"
    for suffix in CONTINUOUS:
        name = name.removesuffix(suffix)
    return name, "loss"


def judges(result: Json) -> list[dict[str, Any]]:
    """Each judge with the win rate of each model it judged against the baseline."""
    found = []
    for judge in result["judges"]:
        name = judge["metric"]
        rates = [
            {"label": label, **_rate(own[name]), "compared": compared(result, label, name),
             "controlled": _percent(judge["length_controlled"].get(label))}
            for label, own in result["models"].items()
            if name in own and label != result["baseline"]
        ]  # fmt: skip
        facts = {
            "Judge": judge["who"],
            "Pairs": judge["pairs"],
            "Same verdict in both orders": _percent(judge["consistency"]),
            "Right on its calibration set": _percent(judge["calibration"]),
            "Preferred the first place": _percent(judge["first_share"]),
            "Pairs without a verdict": judge["failures"],
            "Rank correlation with length": _signed(judge["length_correlation"]),
        }
        facts = {title: value for title, value in facts.items() if value is not None}
        title = result["metrics"][name]["title"] if name in result["metrics"] else name
        found.append({**judge, "title": title, "rates": rates, "facts": facts})
    return found


def _rate(figure: Json) -> dict[str, Any]:
    value, bounds = figure["value"], figure["ci"]
    if value is None:
        return {"text": tables.NONE, "interval": "", "svg": None}
    text = f"{value:.1%}"
    interval = f"[{bounds[0]:.1%}, {bounds[1]:.1%}]" if bounds else ""
    low, high = (bound - 0.5 for bound in bounds or (value, value))
    svg = forest_row(value - 0.5, low, high, half=0.5, margin=None, ends=("0 %", "100 %"), label=f"{text} {interval}")
    return {"text": text, "interval": interval, "svg": svg}


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.2f}"


def clean(result: Json) -> list[dict[str, Any]]:
    """Comparisons on all rows beside the same ones on the rows that overlap with no training data."""
    rows = []
    for entry in (result["clean"] or {}).get("comparisons", ()):
        every = compared(result, entry["model"], entry["metric"], entry["against"])
        rows.append({"model": entry["model"], "all": every, "clean": described(result, entry)})
    return rows


def costs(result: Json) -> list[dict[str, Any]]:
    """What making each model took, as text and as the number to sort by."""
    return [
        {
            "label": label,
            "cells": [
                {"text": text(cost(result["artifacts"][label])), "order": cost(result["artifacts"][label])}
                for cost, text in tables.COSTS.values()
            ],
        }
        for label in _labels(result)
    ]
