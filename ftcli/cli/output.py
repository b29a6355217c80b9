"""What commands print on stdout: paths, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ftcli.core.rundir import Published
from ftcli.core.stage import Kind
from ftcli.launch.inline import run_inline
from ftcli.launch.process import run_in_workers
from ftcli.pipeline.runner import Launcher

SUMMARY = "summary.txt"


def launcher(*, in_process: bool) -> Launcher:
    return run_inline if in_process else run_in_workers


def result_json(item: Published) -> dict[str, Any]:
    """The part of stage.json that scripts ask for, with absolute paths of the outputs."""
    keys = ("id", "stage", "fingerprint", "config", "facts", "started", "ended")
    outputs = {name: {**record, "path": str(item.output(name))} for name, record in item.manifest["outputs"].items()}
    return {**{key: item.manifest[key] for key in keys}, "path": str(item.path), "outputs": outputs}


def print_result(item: Published, *, as_json: bool) -> None:
    """The path of the stage's first output, so that ``MODEL=$(ftcli lora ...)`` works; or everything as JSON."""
    if as_json:
        print(json.dumps(result_json(item), indent=2))
    else:
        print(item.output(next(iter(item.manifest["outputs"]))))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; plain text, so that it can be piped."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report_texts(item: Published) -> list[str]:
    """The short text of every report among the outputs of ``item``, and where the page is."""
    folders = [item.output(name) for name, record in item.manifest["outputs"].items() if record["kind"] == Kind.REPORT]
    return [
        f"{(folder / SUMMARY).read_text(encoding='utf-8').rstrip()}\n\nreport: {folder / 'report.html'}"
        for folder in folders
    ]


def print_reports(items: Sequence[Published]) -> None:
    for item in items:
        for text in report_texts(item):
            print(f"\n{text}")
