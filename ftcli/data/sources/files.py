"""Raw rows of a path: of a file, a folder, a pattern, or a folder saved by `datasets`. Which files it means: `paths`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ftcli.core.errors import BadData
from ftcli.data.records import Record, Reject
from ftcli.data.sources.csv_file import delimiter_of, read_csv
from ftcli.data.sources.hf import is_saved, read_saved
from ftcli.data.sources.json_file import find_layout, read_json
from ftcli.data.sources.parquet import read_arrow, read_parquet
from ftcli.data.sources.paths import COMPRESSIONS, file_type, find_files
from ftcli.data.sources.raw_file import Mine, RawFile
from ftcli.data.sources.text_file import read_text

Reader = Callable[[RawFile, Mine], Iterator[Record | Reject | None]]
READERS: dict[str, tuple[str, Reader]] = {
    ".jsonl": ("JSON", read_json),
    ".ndjson": ("JSON", read_json),
    ".json": ("JSON", read_json),
    ".csv": ("CSV", read_csv),
    ".tsv": ("CSV", read_csv),
    ".txt": ("text", read_text),
    ".md": ("text", read_text),
    ".parquet": ("Parquet", read_parquet),
    ".arrow": ("Arrow", read_arrow),
}


def open_records(path: Path, notes: list[str], owned: Mine = None) -> Iterator[Record | Reject | None]:
    """Raw rows of all files that ``path`` stands for, in order; ``notes`` gets what a person should know.

    Names are relative to the folder or to the pattern's beginning, so that outputs do not depend on where that lies. Rows
    whose index, counted from 0 over all files, is not ``owned`` are None, and not parsed where the format permits it.

    Raises `UsageError` if there is nothing at ``path``, `BadData` for a file of which nothing can be read. Whatever else is
    wrong with a file is a `Reject` among its rows.
    """
    if path.is_dir() and is_saved(path):
        return read_saved(path, path.name, owned)
    return _records([RawFile(found, name, notes) for found, name in find_files(path, notes)], owned)


def describe_files(path: Path, notes: list[str]) -> list[tuple[str, str]]:
    """The name of each file that ``path`` stands for, and its format in words. Raises what `open_records` does."""
    if path.is_dir() and is_saved(path):
        return [(path.name, "datasets folder")]
    described = []
    for found, name in find_files(path, notes):
        file = RawFile(found, name, notes)
        with _readable(file):
            described.append((name, _described(file)))
    return described


def _records(files: list[RawFile], owned: Mine) -> Iterator[Record | Reject | None]:
    start = 0
    for file in files:
        offset = start
        mine = None if owned is None else lambda index, offset=offset: owned(offset + index)
        for item in _read(file, mine):
            if type(item) is Reject and owned is not None and not owned(start):
                yield None  # where a file is cut off, every process says so
            else:
                yield item
            start += 1
        if start == offset:
            file.notes.append(f"{file.name}: no rows in it")


def _read(file: RawFile, mine: Mine) -> Iterator[Record | Reject | None]:
    _, reader = READERS[file_type(file.path)]
    with _readable(file):
        yield from reader(file, mine)


@contextmanager
def _readable(file: RawFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadData(f"{file.name}: cannot be read: {error.strerror or error}", "look at its permissions") from None


def _described(file: RawFile) -> str:
    kind, _ = READERS[file_type(file.path)]
    if kind == "JSON":
        layout = find_layout(file)
        kind = f"{layout.shape}, under {layout.key}" if layout.key else str(layout.shape)
    elif kind == "CSV":
        kind = {"\t": "CSV, tabs", ",": "CSV, commas", ";": "CSV, semicolons"}.get(delimiter_of(file), "CSV")
    packed = COMPRESSIONS.get(file.path.suffix.lower())
    return ", ".join(part for part in (kind, packed, file.wide and file.wide.upper()) if part)
