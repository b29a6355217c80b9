"""Which files a path stands for: a file, a folder, or a pattern such as ``raw/*.jsonl``. Opens none of them.

It imports no reader, so the controller can ask for the files that it has to digest.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from ftcli.core.artifacts import walk
from ftcli.core.config import nearest
from ftcli.core.errors import BadData, UsageError
from ftcli.data.rows import SPLITS

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
STREAMED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md")
"""Types that are read from beginning to end, so they may be compressed."""
INDEXED = (".parquet", ".arrow")
DOCUMENTS = (".txt", ".md")
"""Types that hold one text. Beside files of rows they are most often a README or a licence."""
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""What `datasets` and other tools leave beside rows."""
KNOWN = "known types: " + " ".join((*STREAMED, *INDEXED)) + "; all but the last two also as .gz and .zst"


def file_type(path: Path) -> str:
    """The suffix that says how to read ``path``, without that of its compression; empty for an unknown type."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        inner = suffixes[0] if len(suffixes) == 2 else ""
        return inner if inner in STREAMED else ""
    return suffixes[-1] if suffixes and suffixes[-1] in (*STREAMED, *INDEXED) else ""


def is_pattern(path: Path) -> bool:
    """Whether ``path`` is a pattern: it has ``*``, ``?`` or ``[`` in it, and nothing lies there by that very name."""
    return glob.has_magic(str(path)) and not path.exists()


def pattern_root(path: Path) -> Path:
    """The folder that the names of a pattern's files are relative to: what stands before its first wildcard."""
    parts = path.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def find_files(path: Path, notes: list[str]) -> list[tuple[Path, str]]:
    """The files that ``path`` stands for, in order, each with its name relative to the folder or the pattern's root.

    Of a folder made by prep, the splits. Hidden files never; ``**`` in a pattern goes into folders. Files that nothing
    can read are passed over, and so are texts beside files of rows; ``notes`` gets lines that name them.

    Raises `UsageError` if there is nothing at ``path``, `BadData` if nothing there can be read.
    """
    if is_pattern(path):
        root = pattern_root(path)
        return _readable(path, _matches(path, root), root, notes)
    if path.is_file():
        if not file_type(path):
            raise BadData(f"{path.name}: unknown file type {''.join(path.suffixes[-2:]) or '(no suffix)'}", KNOWN)
        return [(path, path.name)]
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder", _neighbour(path))
    splits = _splits(path)
    if splits:
        return [(split, split.relative_to(path).as_posix()) for split in splits]
    inside = [item for item in walk(path) if not _is_hidden(item.relative_to(path))]
    return _readable(path, inside, path, notes)


def _matches(pattern: Path, root: Path) -> list[Path]:
    if not root.is_dir():
        raise UsageError(f"{pattern}: there is no folder {root}", _neighbour(root))
    found = sorted(set(glob.glob(pattern.relative_to(root).as_posix(), root_dir=root, recursive=True)))
    files = [root / name for name in found if (root / name).is_file()]
    if not files:
        only = "only folders match" if found else "no file matches"
        raise UsageError(f"{pattern}: {only}", "** goes into folders: 'raw/**/*.jsonl'; keep the shell off with quotes")
    return files


def _splits(root: Path) -> list[Path]:
    """The files of splits if ``root`` is what prep made, which has more in it that looks like rows; else nothing.

    That is the folder of the splits with stats.json in it, or the one above, with ``data`` and ``report``.
    """
    if (root / "report" / "stats.json").is_file():
        folder = root / "data"
    elif (root / "stats.json").is_file():
        folder = root
    else:
        return []
    for suffix in (".jsonl", ".parquet"):
        files = [folder / f"{split}{suffix}" for split in SPLITS]
        if all(file.is_file() for file in files):
            return files
    return []


def _readable(path: Path, files: list[Path], root: Path, notes: list[str]) -> list[tuple[Path, str]]:
    known = [file for file in files if file_type(file) and not _is_metadata(file)]
    rows = [file for file in known if file_type(file) not in DOCUMENTS]
    chosen = rows or known
    names = {file: file.relative_to(root).as_posix() for file in files}
    if not chosen:
        raise BadData(f"{path}: no readable file in it; there is {_listed(names.values()) or 'nothing'}", KNOWN)
    unknown = [names[file] for file in files if file not in known]
    if unknown:
        notes.append(f"not read, unknown type: {_listed(unknown)}")
    beside = [names[file] for file in known if file not in chosen]
    if beside:
        notes.append(f"not read, texts beside files of rows: {_listed(beside)}")
    return [(file, names[file]) for file in chosen]


def _is_metadata(path: Path) -> bool:
    """Whether a file is no data by its name: what tools leave beside rows, and what `datasets` computes from them."""
    return path.name in METADATA or (path.suffix == ".arrow" and path.name.startswith("cache-"))


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _listed(names: Iterable[str]) -> str:
    several = list(names)
    return ", ".join(several[:5]) + (" ..." if len(several) > 5 else "")


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    return nearest(path.name, (item.name for item in path.parent.iterdir()))
