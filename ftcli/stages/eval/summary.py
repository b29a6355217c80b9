"""The report in a few lines for a terminal: the table, the first answers side by side, and last what the gate says."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftcli.core.text import aligned
from ftcli.metrics.pages import visible
from ftcli.stages.eval.tables import amount, compared_models, comparison, counts, legend, short_table

WIDTH = 110
CELL = 44
NAMED = 3
"""Metrics that are named where a reason holds for many."""

Json = Mapping[str, Any]


def summary_text(result: Json, samples: Sequence[Json], shown: int = 2) -> str:
    """``result`` is what metrics.json holds; of ``samples``, from samples.jsonl, the first ``shown`` answered are printed."""
    answered = [record for record in samples if any("greedy" in one for one in record["models"].values())]
    lines = [*_leakage(result), *blocks(short_table(result)), "", *textwrap.wrap(legend(result), WIDTH)]
    for record in answered[:shown]:
        lines += ["", *_sample(record)]
    return "\n".join([*lines, "", *_counted(result), *undecided(result), *_gate(result)]).rstrip("\n") + "\n"


def blocks(table: Sequence[Sequence[str]]) -> list[str]:
    """``table`` in lines of at most `WIDTH`: with many models, its first two columns again above the next models."""
    cut = [[_shortened(item) for item in row] for row in table]
    widths = [max(len(row[column]) for row in cut) + 2 for column in range(len(cut[0]))]
    groups: list[list[int]] = [[]]
    for column in range(2, len(widths)):
        if groups[-1] and sum(widths[:2]) + sum(widths[one] for one in (*groups[-1], column)) - 2 > WIDTH:
            groups.append([])
        groups[-1].append(column)
    lines: list[str] = []
    for group in groups:
        lines += [""] * bool(lines)
        lines += aligned([[row[column] for column in (0, 1, *group)] for row in cut])
    return lines


def _shortened(text: str) -> str:
    text = visible(text)
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def _leakage(result: Json) -> list[str]:
    found = result["leakage"]
    if not found:
        return []
    if not found["checked"]:
        return ["leakage: not checked, what the models were trained on is not known", ""]
    known = "known " if found["unknown"] else ""
    rows = f"{found['exact']} exact, {found['near']} near of {result['rows']['scored']} rows"
    return [f"leakage: {rows} in the {known}training data", ""]


def _counted(result: Json) -> Iterator[str]:
    """For each model how many metrics went where, and which ones got worse by how much."""
    for model in compared_models(result):
        found = counts(result, model)
        if not found:
            continue
        entries = [comparison(result, model, name) for name in found.get("regressed", ())]
        worse = ", ".join(
            f"{one['metric']} {amount(one, result['metrics'][one['metric']], one['change'])}" for one in entries if one
        )
        words = [
            f"{len(names)} {name.upper() if name == 'regressed' else name}"
            + (f" ({worse})" if name == "regressed" else "")
            for name, names in found.items()
        ]
        yield from textwrap.wrap(f"{visible(model)}: {', '.join(words)}", WIDTH, subsequent_indent="  ")


def undecided(result: Json) -> Iterator[str]:
    """Why metrics could not be compared, each reason once with the metrics that it is about."""
    for model in compared_models(result):
        why: dict[str, list[str]] = {}
        for name in counts(result, model).get("not evaluable", ()):
            if entry := comparison(result, model, name):
                why.setdefault(entry["reason"], []).append(name)
        for reason, names in why.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            text = f"not evaluable: {visible(model)}: {', '.join(names[:NAMED])}{more}: {visible(reason)}"
            yield from textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def _gate(result: Json) -> Iterator[str]:
    """Rules that did not pass, then the gate's own line."""
    gate = result["gate"]
    if not gate:
        return
    yield ""
    for one in gate["results"]:
        if one["status"] != "passed":
            soft = " (soft)" if one["severity"] == "soft" else ""
            name = one["status"].upper() if one["status"] == "failed" else one["status"]
            yield from textwrap.wrap(
                ": ".join([f"{name}{soft}", *(visible(one[key]) for key in ("model", "text", "message") if one[key])]),
                WIDTH,
                subsequent_indent="  ",
            )
    yield from textwrap.wrap(visible(gate["headline"]), WIDTH, subsequent_indent="  ")


def _sample(record: Json) -> Iterator[str]:
    answers = {label: found["greedy"]["text"] for label, found in record["models"].items() if "greedy" in found}
    width = max(len(name) for name in ("reference", *answers))
    yield from _wrapped("", record["prompt"][-1]["content"], 0)
    yield from _wrapped("reference", record["reference"], width)
    for label, text in answers.items():
        yield from _wrapped(label, text, width)


def _wrapped(name: str, text: str, width: int) -> list[str]:
    first = f"  {name.ljust(width)}  " if width else ""
    whole = textwrap.shorten(visible(text), 3 * WIDTH, placeholder=" ...") or "(empty)"
    return textwrap.wrap(whole, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
