"""report.html: one file, no script, no network, light and dark, in the look of the evaluation report.

Everything printed goes through one filter that shows hidden characters as what they are, and then through the template
engine's escaping; a content security policy forbids scripts and loading of anything, in case something slips through. Texts
from rows are masked first: a report gets passed on more freely than its data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ftcli import __version__
from ftcli.metrics import plots
from ftcli.metrics.pages import page_style, visible
from ftcli.metrics.plots import Point
from ftcli.metrics.words import word_diff
from ftcli.stages.prep.report.lights import COLOURS, MARKS, WORDS, compared_rows, lights, of
from ftcli.stages.prep.report.masking import masked
from ftcli.stages.prep.report.shown import Shown
from ftcli.stages.prep.report.text import chance, count, counted, decimals, ranked, share, shorten, tally

Json = Mapping[str, Any]

FILES, BARS, ANSWERS, PLACES, CATEGORIES = 50, 12, 5, 5, 12
"""How many of each are shown."""
RAW_CHARACTERS = 600
LABEL_CHARACTERS = 30
PARTS = {"prompt": "Prompt", "answer": "Answer", "total": "Whole row"}


def render_page(stats: Json, shown: Shown) -> str:
    """The page, from stats.json and what was chosen of the files beside it."""
    environment = Environment(
        loader=PackageLoader("ftcli.stages.prep.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    filters = (chance, count, counted, share, decimals, tally, ranked, masked)
    environment.filters |= {function.__name__: function for function in filters}
    return environment.get_template("page.html").render(
        version=__version__,
        style=page_style(),
        stats=stats,
        lights=lights(stats),
        compared_rows=compared_rows(stats),
        light_words=WORDS,
        light_marks=MARKS,
        light_levels=COLOURS,
        titles=PARTS,
        files=files(stats),
        charts=length_charts(stats["lengths"]),
        bars=category_bars(stats),
        uniform=uniform(stats),
        reasons=reasons(stats, shown),
        flags=flags(stats, shown),
        pairs=[pair(record) for record in shown.pairs],
        conflicts=[conflict(record) for record in shown.conflicts],
        shown_categories=CATEGORIES,
    )


def _printable(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def files(stats: Json) -> dict[str, Any]:
    """The files with the most rows refused, and how many files are left out."""
    ordered = sorted(stats["files"], key=lambda item: (-item["rejected"], item["file"]))
    return {"rows": ordered[:FILES], "more": max(0, len(ordered) - FILES)}


def length_charts(lengths: Json) -> list[dict[str, Any]]:
    """A histogram of each part of the rows, with the limit of whole rows marked in each."""
    return [
        {
            "title": title,
            "note": f"median {count(lengths[part]['p50'])}, 95 % up to {count(lengths[part]['p95'])}",
            "svg": Markup(
                plots.histogram(
                    lengths[part]["histogram"]["edges"],
                    lengths[part]["histogram"]["counts"],
                    limit=lengths["max_length"],
                    x_label=lengths["unit"],
                )
            ),
        }
        for part, title in PARTS.items()
        if sum(lengths[part]["histogram"]["counts"])
    ]


def categories(stats: Json) -> list[tuple[str, list[tuple[str, int]]]]:
    """Kept rows by language, source and number of answers."""
    turns = sorted(stats["turns"].items(), key=lambda item: int(item[0]))
    sources = [(item["label"], item["rows_out"]) for item in stats["sources"]]
    return [("Languages", ranked(stats["languages"])), ("Sources", sources), ("Answers in a conversation", turns)]


def category_bars(stats: Json) -> list[dict[str, Any]]:
    """A chart of each category in which rows differ."""
    return [
        {"title": title, "svg": Markup(plots.bars(_points(items)))}
        for title, items in categories(stats)
        if len(items) > 1
    ]


def uniform(stats: Json) -> list[tuple[str, str]]:
    """Categories in which all rows are the same, with what they are."""
    return [(title, items[0][0]) for title, items in categories(stats) if len(items) == 1]


def _points(items: Sequence[tuple[str, int]]) -> list[Point]:
    whole = sum(rows for _, rows in items)
    rest = sum(rows for _, rows in items[BARS:])
    shown = [*items[:BARS], *([(f"{len(items) - BARS} others", rest)] if rest else [])]
    return [
        Point(shorten(visible(name), LABEL_CHARACTERS), rows, None, None, f"{count(rows)} · {share(of(rows, whole))}")
        for name, rows in shown
    ]


def reasons(stats: Json, shown: Shown) -> list[dict[str, Any]]:
    """Every reason for a refusal with its rows and examples, the most frequent first."""
    return [
        {
            "name": name,
            "rows": rows,
            "examples": [
                {**record, "raw": shorten(masked(record["raw"]), RAW_CHARACTERS)}
                for record in shown.rejects.get(name, [])
            ],
        }
        for name, rows in ranked(stats["rejected"])
    ]


def flags(stats: Json, shown: Shown) -> list[dict[str, Any]]:
    return [
        {"name": name, "rows": rows, "examples": shown.flags.get(name, [])} for name, rows in ranked(stats["flags"])
    ]


def pair(record: Json) -> dict[str, Any]:
    """Two similar rows, with the words marked that only one of them has."""
    left, right = word_diff(masked(record["text"]), masked(record["kept_text"]))
    return {**record, "left": left, "right": right}


def conflict(record: Json) -> dict[str, Any]:
    """A prompt and its answers, the first `ANSWERS` of them, each with the first `PLACES` of its rows."""
    answers = [
        {
            "text": shorten(masked(answer["text"]), RAW_CHARACTERS),
            "count": answer["count"],
            "rows": answer["rows"][:PLACES],
            "more": max(0, answer["count"] - PLACES),
            "label": answer.get("label"),
        }
        for answer in record["answers"][:ANSWERS]
    ]
    prompt = shorten(masked(record["prompt"]), RAW_CHARACTERS)
    distinct = record.get("distinct", len(record["answers"]))
    return {**record, "prompt": prompt, "answers": answers, "more": max(0, distinct - ANSWERS)}
