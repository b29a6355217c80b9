"""`ftcli prep --inspect`: what the sources hold and what would become of their first rows. Nothing is kept."""

from __future__ import annotations

import json
from itertools import islice

import orjson

from ftcli.core.errors import FtcliError
from ftcli.core.stage import Artifact, Context
from ftcli.data.records import Record
from ftcli.data.sources.files import describe_files
from ftcli.data.sources.open import open_source
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.plan import plan_of
from ftcli.stages.prep.row_steps import RowSteps

LOOKED_AT = 1000
SHOWN_ROWS = 3
SHOWN_FILES = 10
SHOWN_REJECTS = 5
SHOWN_CHARS = 400


def look(ctx: Context[PrepConfig]) -> str:
    """Per source: columns, format, three canonical rows, and what was refused or flagged among the first rows."""
    lines: list[str] = []
    for number, source in enumerate(ctx.many("source")):
        lines += ["", *_source(ctx, number, source)] if lines else _source(ctx, number, source)
    return "\n".join(lines)


def _source(ctx: Context[PrepConfig], number: int, source: Artifact) -> list[str]:
    notes: list[str] = []
    opened = open_source(source.ref, source.path, notes)
    records = [item for item in islice(opened, LOOKED_AT) if item is not None]
    columns: dict[str, None] = {}
    for item in records:
        if isinstance(item, Record):
            columns.update(dict.fromkeys(item.value))
    lines = [f"{source.label}: {source.ref}"]
    if not source.ref.startswith(("pydoc:", "hf:")):
        lines += [f"  file      {name}: {kind}" for name, kind in describe_files(source.path, [])[:SHOWN_FILES]]
    lines.append(f"  columns   {', '.join(columns) or 'none'}")
    try:
        plan = plan_of(ctx, notes)
    except FtcliError as error:
        return [
            *lines,
            *(f"  note      {note}" for note in notes),
            f"  problem   {error.message}",
            f"  next      {error.hint}",
        ]
    chunk = RowSteps(plan).run(records, number)
    lines.append(f"  format    {plan.sources[number].format}")
    lines += [f"  note      {note}" for note in dict.fromkeys(notes)]
    for row in chunk.rows[:SHOWN_ROWS]:
        lines.append("  row       " + _cut(json.dumps(orjson.loads(row), ensure_ascii=False)))
    tally = chunk.tally
    lines.append(f"  of the first {len(records)} rows {len(chunk.rows)} would stay")
    lines += [f"    {count:>6}  refused: {key.replace('/', ': ')}" for key, count in sorted(tally.refused.items())]
    lines += [f"    {count:>6}  changed: {name}" for name, count in sorted(tally.changed.items())]
    lines += [f"    {count:>6}  flagged: {kind}" for kind, count in sorted(tally.flags.items())]
    for item in chunk.rejects[:SHOWN_REJECTS]:
        lines.append(f"  refused   {item['file']}:{item['line']}: {item['reason']}: {_cut(item['detail'])}")
    return lines


def _cut(text: str) -> str:
    printable = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return printable if len(printable) <= SHOWN_CHARS else printable[: SHOWN_CHARS - 1] + "\u2026"
