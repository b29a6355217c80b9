"""Digests of files and folders, and writing that survives a crash.

The digest of a folder is sha256 over sorted lines ``relative path, size, sha256 of the content``, so it does not depend on
where the folder lies, on times or on modes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FileRecord = dict[str, Any]


def walk(root: Path) -> Iterator[Path]:
    """Files under ``root`` (or ``root`` itself), sorted by relative path. Links are followed: a hub cache is made of them."""
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        if path.is_file():
            yield path


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_records(files: dict[str, FileRecord]) -> str:
    """The digest of a folder from its file records."""
    lines = [f"{name}\0{record['size']}\0{record['sha256']}\n" for name, record in sorted(files.items())]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def file_records(root: Path) -> dict[str, FileRecord]:
    """``{relative path: {size, sha256}}`` of every file under ``root``."""
    return {
        (path.relative_to(root).as_posix() if path != root else path.name): {
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in walk(root)
    }


def fsync_path(path: Path) -> None:
    """Flush a file or a directory entry to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(root: Path) -> None:
    """Flush every file and folder under ``root``, and give each the mode the umask asks for.

    safetensors writes its files with mode 0600 whatever the umask is (safetensors issue 782), which locks colleagues out.
    """
    umask = os.umask(0)
    os.umask(umask)
    for path in [*walk(root), *(p for p in root.rglob("*") if p.is_dir()), root]:
        if not path.is_symlink():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        fsync_path(path)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON: readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_path(path.parent)
