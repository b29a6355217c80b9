"""The report of a synth run: summary.txt, report.html and the figures in both, figures.json.

The page loads nothing and runs nothing; what the teacher wrote is escaped, and control and direction characters are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ftcli import __version__
from ftcli.core.artifacts import write_json
from ftcli.core.config import StageConfig, non_default
from ftcli.core.text import aligned
from ftcli.data.rows import Row, reference_of
from ftcli.data.texts import prompt_text
from ftcli.metrics.pages import page_style, visible

Json = Mapping[str, Any]
SHOWN = 10
"""Rows, and rejected replies, that the page shows."""
EACH = 3
"""Rejected replies shown of one reason."""
CHARACTERS = 1200


def write_report(
    folder: Path, facts: Json, rows: Sequence[Row], rejected: Sequence[Json], config: StageConfig, teacher: Json
) -> None:
    figures = {
        **facts,
        "templates": by_template(rows, rejected),
        "teacher": dict(teacher),
        "settings": non_default(config),
    }
    write_json(folder / "figures.json", figures)
    (folder / "summary.txt").write_text(summary_text(figures), encoding="utf-8")
    (folder / "report.html").write_text(render_report(figures, rows, rejected), encoding="utf-8")


def by_template(rows: Sequence[Row], rejected: Sequence[Json]) -> dict[str, dict[str, int]]:
    """Rows and dropped replies of each template."""
    kept = Counter(row["meta"]["prov"]["template"]["id"] for row in rows)
    dropped = Counter(item["template"] for item in rejected)
    return {name: {"rows": kept[name], "dropped": dropped[name]} for name in sorted(kept | dropped)}


def summary_text(figures: Json) -> str:
    teacher = figures["teacher"]
    tokens = "not counted" if figures["tokens"] is None else f"{figures['tokens']:,}"
    lines = [
        f"{figures['rows']} rows of {figures['asked']} replies by {teacher['name']} "
        f"(licence: {teacher['license'] or 'not known'})",
        f"{figures['planned'] - figures['asked']} of {figures['planned']} requests were not made; "
        f"{figures['repairs']} replies were asked for again; tokens: {tokens}",
        "",
        *aligned([("dropped", "replies"), *((name, str(count)) for name, count in figures["rejected"].items())]),
        "",
        *aligned(
            [
                ("template", "rows", "dropped"),
                *((name, str(item["rows"]), str(item["dropped"])) for name, item in figures["templates"].items()),
            ]
        ),
    ]
    return visible("\n".join(lines)) + "\n"


def render_report(figures: Json, rows: Sequence[Row], rejected: Sequence[Json]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"visible": lambda value: visible(shortened(str(value)))}
    source = resources.files("ftcli.stages.synth").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        version=__version__,
        style=page_style(),
        figures=figures,
        rows=[_shown(row) for row in rows[:SHOWN]],
        rejected=some_of_each(rejected),
    )


def some_of_each(rejected: Sequence[Json]) -> list[Json]:
    """The first `EACH` replies of every reason, by reason."""
    seen: Counter[str] = Counter()
    found = []
    for item in sorted(rejected, key=lambda item: str(item["reason"])):
        seen[item["reason"]] += 1
        if seen[item["reason"]] <= EACH:
            found.append(item)
    return found


def shortened(text: str) -> str:
    more = len(text) - CHARACTERS
    return text if more <= 0 else f"{text[:CHARACTERS]} … ({more} more characters)"


def _shown(row: Row) -> dict[str, Any]:
    prov = row["meta"]["prov"]
    return {
        "id": row["id"],
        "template": prov["template"]["id"],
        "seeds": ", ".join(prov["seed_ids"]),
        "prompt": prompt_text(row),
        "answer": reference_of(row) or "",
        "rejected": row["rejected"][-1]["content"] if "rejected" in row else "",
        "scores": ", ".join(f"{name} {value}" for name, value in prov["gates"].items()),
    }
