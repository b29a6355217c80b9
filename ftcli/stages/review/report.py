"""The report on a review: report.html (one file, no script, no network, light and dark), summary.txt, figures.json, rejected.jsonl
with every row that is out and what was said of it, and edited.jsonl with every edited row as it came in and as it goes on.

All text of rows and people is escaped by the template engine and its control and direction characters are shown as what they are; a
content security policy forbids scripts and loading of anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ftcli import __version__
from ftcli.core.artifacts import write_json
from ftcli.core.text import aligned
from ftcli.data.rows import Row, write_jsonl
from ftcli.data.texts import PARTS, said
from ftcli.metrics.pages import page_style, visible
from ftcli.metrics.words import word_diff
from ftcli.stages.review.decide import Decision, Reviewed
from ftcli.stages.review.figures import NOT_TOLD, Json, forbids_trade, rate_text

SHOWN = 8
"""How many edited and rejected rows the page shows."""
SHOWN_CHARACTERS = 4000
NONE = "-"


def write_report(folder: Path, figures: Json, reviewed: Sequence[Reviewed], source: str) -> None:
    """Fill ``folder``; ``source`` is what the rows are called."""
    rejected = list(rejected_rows(reviewed))
    edited = list(edited_rows(reviewed))
    write_json(folder / "figures.json", figures)
    write_jsonl(folder / "rejected.jsonl", rejected)
    write_jsonl(folder / "edited.jsonl", edited)
    (folder / "summary.txt").write_text(summary_text(figures), encoding="utf-8")
    (folder / "report.html").write_text(render_report(figures, rejected, edited, source), encoding="utf-8")


def rejected_rows(reviewed: Iterable[Reviewed]) -> Iterator[dict[str, Any]]:
    for one in reviewed:
        if one.decision is not None and one.decision.verdict == "reject":
            about = {"id": one.row["id"], "split": one.split, "reason": one.decision.reason}
            yield {**about, "judgements": _said(one.decision), "row": one.row}


def edited_rows(reviewed: Iterable[Reviewed]) -> Iterator[dict[str, Any]]:
    for one in reviewed:
        if one.decision is not None and one.decision.row is not None:
            about = {"id": one.row["id"], "split": one.split, "judgements": _said(one.decision)}
            yield {**about, "before": one.row, "after": one.decision.row}


def _said(decision: Decision) -> list[dict[str, str]]:
    return [
        {"grader": one.grader, "verdict": one.verdict, "reason": one.reason, "note": one.note, "at": one.at}
        for one in decision.said
    ]


def verdict(figures: Json) -> str:
    """What the review came to, in a sentence or two."""
    if not figures["judged"]:
        return f"Nobody looked at these {figures['rows_in']} rows (mode none)."
    text = f"People judged {figures['judged']} of {figures['rows_in']} rows: {rate_text(figures['accepted'], figures['judged'])}."
    if figures["unreviewed"]:
        text += f" Nobody looked at the other {figures['unreviewed']}."
    return text


def summary_text(figures: Json) -> str:
    """The report in a few lines for a terminal."""
    rows = [("rows", f"{figures['rows_in']} in, {figures['rows_out']} out")]
    if figures["judged"]:
        rows.append(("edited", str(figures["edited"])))
        rows.append(("rejected", str(figures["rejected"])))
        rows += [(f"  {reason}", str(count)) for reason, count in figures["reasons"].items()]
        rows += [
            (f"reviewer {one['name']}", f"judged {one['judged']}, rejected {one['reject']}")
            for one in figures["reviewers"]
        ]
        if figures["agreement"]:
            rows.append(("agreement", figures["agreement"]["words"]))
            rows += [(f"{one['first']} and {one['second']}", pair_text(one)) for one in figures["agreement"]["pairs"]]
    rows += [("teacher", f"{one['teacher']}, {one['rows']} rows; {licence_text(one)}") for one in figures["licences"]]
    return visible("\n".join([verdict(figures), "", *(f"  {line}" for line in aligned(rows))]) + "\n")


def pair_text(pair: Json) -> str:
    """``the same of 75.0% of 12 rows, Cohen's kappa 0.50``."""
    kappa = "not defined" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
    return f"the same of {pair['raw']:.1%} of {pair['units']} rows, Cohen's kappa {kappa}"


def licence_text(one: Json) -> str:
    source = "" if one["source_license"] == NOT_TOLD else f", source {one['source_license']}"
    return f"licence {one['license']}{source}{' (non-commercial)' if forbids_trade(one) else ''}"


def render_report(figures: Json, rejected: Sequence[Json], edited: Sequence[Json], source: str) -> str:
    environment = Environment(
        loader=PackageLoader("ftcli.stages.review", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.tests["noncommercial"] = forbids_trade
    environment.filters |= {"share": lambda value: NONE if value is None else f"{value:.1%}"}
    edits = [
        {**one, "sides": word_diff(row_text(one["before"]), row_text(one["after"]))} for one in islice(edited, SHOWN)
    ]
    return environment.get_template("report.html").render(
        version=__version__,
        style=page_style(),
        figures=figures,
        verdict=verdict(figures),
        edits=edits,
        rejects=[{**one, "text": cut(row_text(one["row"]))} for one in rejected[:SHOWN]],
        source=source,
        not_told=NOT_TOLD,
    )


def _printable(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def row_text(row: Row) -> str:
    """All that a reviewer can edit, each part after its name."""
    if "text" in row:
        return str(row["text"])
    lines = [f"{_speaker(part, item)}: {said(item)}" for part in PARTS if part in row for item in row[part]]
    lines += [f"{name}: {json.dumps(row[name], ensure_ascii=False)}" for name in ("label", "tools") if name in row]
    return "\n\n".join(lines)


def _speaker(part: str, item: Json) -> str:
    if part == "candidates":
        return f"rank {item['rank']}"
    return str(item["role"]) if part in ("prompt", "messages") else part


def cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
