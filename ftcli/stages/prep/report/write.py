"""Write the report: report.html, report.md and summary.txt beside the files that they are made from."""

from __future__ import annotations

import json
from pathlib import Path

from ftcli.core.errors import BadData
from ftcli.stages.prep.report.markdown import markdown
from ftcli.stages.prep.report.page import render_page
from ftcli.stages.prep.report.shown import choose
from ftcli.stages.prep.report.summary import summary_text

STATS = "stats.json"


def write_report(folder: Path) -> None:
    """Report on what lies in ``folder``: stats.json, and rejects, duplicates, conflicts and flags as .jsonl.

    Raises `BadData` if there is no stats.json, or a file is not as prep writes it.
    """
    try:
        stats = json.loads((folder / STATS).read_text(encoding="utf-8", errors="surrogateescape"))
    except (FileNotFoundError, ValueError) as error:
        raise BadData(f"{folder / STATS}: {error}", "run `ftcli prep`, which writes it") from None
    duplicates = stats.get("duplicates")
    shown = choose(folder, duplicates["threshold"] if duplicates else None)
    (folder / "summary.txt").write_text(summary_text(stats), encoding="utf-8")
    (folder / "report.md").write_text(markdown(stats), encoding="utf-8")
    (folder / "report.html").write_text(render_page(stats, shown), encoding="utf-8")
