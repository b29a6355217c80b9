"""The records of any source: files, the hub, or docstrings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ftcli.data.records import Record, Reject
from ftcli.data.sources.files import open_records
from ftcli.data.sources.hf import read_hub
from ftcli.data.sources.pydoc import read_pydoc
from ftcli.data.sources.raw_file import Mine


def open_source(ref: str, path: Path, notes: list[str], mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Raw rows of a source; ``notes`` gets what a person should know about it.

    With ``mine``, the records whose running index it refuses are None: another process reads them.
    """
    kind, _, name = ref.partition(":")
    if kind == "pydoc":
        return (item if mine is None or mine(index) else None for index, item in enumerate(read_pydoc(name, notes)))
    if kind == "hf":
        name, _, revision = name.partition("@")
        return read_hub(name, revision or None, mine)
    return open_records(path, notes, mine)
