"""Which files a path stands for: a file, or a folder of files. Opening them is `readers`' work, given by the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from ftcli.core.config import nearest
from ftcli.core.errors import BadData, UsageError
from ftcli.data.records import Record, Reject
from ftcli.data.rows import SPLITS


class Reader(Protocol):
    def __call__(self, path: Path, name: str) -> Iterator[Record | Reject]: ...


Readers = Mapping[str, Reader]
"""How to read a file, by its suffix."""


def find_files(root: Path, readers: Readers, notes: list[str]) -> list[Path]:
    """The files that ``root`` stands for, in order. Of a folder made by prep, the three splits; hidden files never.

    Files of a folder that nothing can read are passed over, and ``notes`` gets a line that names them.

    Raises `UsageError` if there is nothing at ``root``, `BadData` if nothing there can be read.
    """
    if root.is_file():
        _check_suffix(root, readers)
        return [root]
    if not root.is_dir():
        raise UsageError(f"{root}: no such file or folder", _neighbour(root))
    splits = [root / f"{split}.jsonl" for split in SPLITS]
    if (root / "stats.json").is_file() and all(path.is_file() for path in splits):
        return splits
    inside = [path for path in sorted(root.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(root))]
    found = [path for path in inside if path.suffix.lower() in readers]
    others = [path.relative_to(root).as_posix() for path in inside if path not in found]
    if not found:
        there = ", ".join(others[:5]) or "nothing"
        raise BadData(f"{root}: no readable file in it; there is {there}", f"known types: {' '.join(sorted(readers))}")
    if others:
        notes.append(f"not read, unknown type: {', '.join(others[:5])}{' ...' if len(others) > 5 else ''}")
    return found


def read_files(root: Path, readers: Readers, notes: list[str]) -> Iterator[Record | Reject]:
    """Raw rows of all files that ``root`` stands for.

    Names are relative to it, so that outputs do not depend on where it lies.
    """
    for path in find_files(root, readers, notes):
        name = path.name if path == root else path.relative_to(root).as_posix()
        yield from readers[path.suffix.lower()](path, name)


def _check_suffix(path: Path, readers: Readers) -> None:
    if path.suffix.lower() not in readers:
        known = " ".join(sorted(readers))
        raise BadData(f"{path.name}: unknown file type {path.suffix or '(no suffix)'}", f"known types: {known}")


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _neighbour(root: Path) -> str:
    if not root.parent.is_dir():
        return f"there is no folder {root.parent} either"
    return nearest(root.name, (path.name for path in root.parent.iterdir()))
