"""The command votes: what people judged, out of a run and into it, as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ftcli.cli.serve import desk_file, grader_names
from ftcli.core.errors import UsageError, disk_errors
from ftcli.core.rundir import RunDir


def votes(
    run: Annotated[Path, typer.Option("--run", help="Run directory.", envvar="FTCLI_RUN")] = Path("runs/default"),
    export: Annotated[
        Path | None, typer.Option("--export", help="Write all judgements that stand, as JSON lines.", metavar="FILE")
    ] = None,
    sheets: Annotated[
        Path | None,
        typer.Option(
            "--sheets", help="Write what is still to judge: a CSV sheet for each grader and task.", metavar="FOLDER"
        ),
    ] = None,
    imports: Annotated[
        list[Path] | None,
        typer.Option(
            "--import",
            help="Add the judgements of a filled-in sheet (.csv) or of JSON lines. Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    graders: Annotated[
        str | None,
        typer.Option(
            help="With --sheets: who judges, with commas between.  [default: your login name]", metavar="NAMES"
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(min=1, help="With --sheets: graders who judge each item.  [default: what the stage asks for]"),
    ] = None,
) -> None:
    """Export or import what people judged, or write sheets for people who judge away from the desk.

    A sheet shows answers under letters; which model a letter stands for stays in the run directory.

    Example:

      ftcli votes --run runs/rlhf --sheets to-judge --graders ann,bob
    """
    if (export is not None) + (sheets is not None) + (imports is not None) != 1:
        raise UsageError("votes needs one of --export, --sheets and --import")
    if sheets is None and (graders is not None or overlap is not None):
        raise UsageError("--graders and --overlap go with --sheets")
    from ftcli.human.desk import Desk
    from ftcli.human.store import Store
    from ftcli.human.votes import export_jsonl, export_sheets, import_jsonl, import_sheet

    store = Store(desk_file(RunDir(run)))
    for path in imports or []:
        if not path.is_file():
            raise UsageError(f"--import {path}: no such file")
        added = (import_sheet if path.suffix.lower() == ".csv" else import_jsonl)(store, path)
        blank = f", {added.blank} left blank" if added.blank else ""
        print(f"{path}: {added.new} new judgements, {added.known} that stood already{blank}", file=sys.stderr)
    if export is not None:
        with disk_errors(export):
            count = export_jsonl(store, export)
        print(f"{count} judgements", file=sys.stderr)
        print(export)
    if sheets is not None:
        with disk_errors(sheets):
            written = export_sheets(Desk(store, grader_names(graders), overlap), sheets)
        print("\n".join(map(str, written)) or "nothing is left to judge")
