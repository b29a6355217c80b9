"""JSON lines. Files are split at line feeds only: `str.splitlines` would break valid rows at U+2028. A bad line costs itself."""

from __future__ import annotations

from collections.abc import Iterator

from ftcli.data.records import Record, Reject
from ftcli.data.sources.json_row import parse_row
from ftcli.data.sources.raw_file import Mine, RawFile


def read_jsonl(file: RawFile, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Rows of a file with one JSON object a line. Blank lines are no rows; lines that are not ``mine`` are not parsed."""
    index, number = -1, 0
    with file.open() as lines:
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            index += 1
            if file.damage and not line.endswith(b"\n"):
                yield file.cut_off(number, line.decode("utf-8", "backslashreplace"))
                return
            yield parse_row(file, number, line) if mine is None or mine(index) else None
    if file.damage:
        yield file.cut_off(number + 1)
