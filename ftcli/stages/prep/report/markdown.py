"""report.md: the figures of the page without the texts of rows, for a pull request or a chat.

What a user wrote (file names, labels) is escaped: neither a bar nor a tag in it does anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ftcli.stages.prep.report.lights import MARKS, WORDS, lights
from ftcli.stages.prep.report.text import count, counted, decimals, one_line, ranked, share, tally

Stats = Mapping[str, Any]

SPECIAL = re.compile(r"([\\`*_\[\]<#!|~&$:@])")
CELL_CHARACTERS = 200


def markdown(stats: Stats) -> str:
    """The whole file; tables without rows are left out with their titles."""
    title = f"# {count(stats['rows_out'])} of {counted(stats['rows_in'], 'row')} prepared"
    sections = [[f"## {name}", "", *lines] for name, lines in _tables(stats).items() if lines]
    return "\n\n".join([title, *("\n".join(lines) for lines in sections)]) + "\n"


def escape(text: str) -> str:
    """``text`` on one line with every character escaped that means something in Markdown or HTML."""
    return SPECIAL.sub(r"\\\1", one_line(text, CELL_CHARACTERS)).replace("\\<", "&lt;").replace("\\&", "&amp;")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A table whose first ``left`` columns are text. Cells are escaped; a table without rows is none."""
    if not rows:
        return []
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return ["| " + " | ".join(cells) + " |" for cells in [header, rule, *(map(escape, row) for row in rows)]]


def _tables(stats: Stats) -> dict[str, list[str]]:
    return {
        "At a glance": table(["", "Verdict", "Value"], _lights(stats), left=3),
        "Gates": table(["Gate", "Found", "Limit", "Passed"], _gates(stats)),
        "Ledger": table(["Step", "Reasons", "In", "Out"], [_step(step) for step in stats["ledger"]], left=2),
        "Refused": table(["Reason", "Rows"], _counts(stats["rejected"])),
        "Flagged": table(["Kind", "Rows"], _counts(stats["flags"])),
        "Changed": table(["Cleaning", "Rows"], _counts(stats["changed"])),
        "Sources": table(["Source", "Where", "Rows kept"], _sources(stats), left=2),
        f"Lengths in {stats['lengths']['unit']}": table(["", *LENGTHS.values()], _lengths(stats)),
        "Languages": table(["Language", "Rows"], _counts(stats["languages"])),
        "Splits": table(["Split", "Rows", "Groups", "Share", "Wanted"], _splits(stats)),
        "Representativeness": table(["Measure", "Found", "Light"], _measures(stats.get("representativeness"))),
    }


def _lights(stats: Stats) -> list[list[str]]:
    return [[light.name, f"{MARKS[light.level]} {WORDS[light.level]}", light.value] for light in lights(stats)]


def _gates(stats: Stats) -> list[list[str]]:
    return [
        [gate["name"], str(gate["value"]), str(gate["limit"]), "yes" if gate["passed"] else "no"]
        for gate in stats["gates"]
    ]


def _step(step: Mapping[str, Any]) -> list[str]:
    return [step["step"], tally(step["rejected"]), count(step["rows_in"]), count(step["rows_out"])]


def _counts(counts: Mapping[str, int]) -> list[list[str]]:
    return [[name, count(rows)] for name, rows in ranked(counts)]


def _sources(stats: Stats) -> list[list[str]]:
    return [[item["label"], item["ref"], count(item["rows_out"])] for item in stats["sources"]]


LENGTHS = {"mean": "Mean", "p50": "Median", "p95": "95 %", "max": "Longest", "sum": "Sum"}


def _lengths(stats: Stats) -> list[list[str]]:
    return [
        [part, *(count(stats["lengths"][part][name]) for name in LENGTHS)] for part in ("prompt", "answer", "total")
    ]


def _splits(stats: Stats) -> list[list[str]]:
    return [
        [name, count(part["rows"]), count(part["groups"]), share(part["share"]), share(part["wanted_share"])]
        for name, part in stats["splits"].items()
    ]


def _measures(found: Mapping[str, Any] | None) -> list[list[str]]:
    if not found:
        return []
    measures = [
        ("Classifier AUC", found["classifier"], "auc", 3),
        ("Jensen-Shannon excess, bits", found["divergence"], "excess", 4),
        ("Coverage", found["coverage"], "share", 3),
        *((f"KS of {name}", item, "ks", 3) for name, item in found["lengths"].items()),
        *((f"PSI of {name}", item, "psi", 3) for name, item in found["categories"].items()),
    ]
    return [[name, decimals(item.get(key), places), item["light"] or "-"] for name, item, key, places in measures]
