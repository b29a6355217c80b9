"""Digests of files and folders, and writing that survives a crash.

The digest of a folder is sha256 over sorted lines ``relative path, size, sha256 of the content``, so it does not depend on
where the folder lies, on times or on modes.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FileRecord = dict[str, Any]


def walk(root: Path) -> Iterator[Path]:
    """Files under ``root`` (or ``root`` itself), sorted by relative path.

    Links are followed, to folders too: a hub cache is made of them. Raises `OSError` for a folder that cannot be read,
    since its files would be missing from the digest.
    """
    if root.is_file():
        yield root
        return
    found = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_raise):
        folders[:] = [name for name in folders if not _leads_back(Path(folder), name)]
        found += [Path(folder, name) for name in names]
    for path in sorted(found, key=lambda path: path.relative_to(root).as_posix()):
        if path.is_file():
            yield path


def _raise(error: OSError) -> None:
    raise error


def _leads_back(folder: Path, name: str) -> bool:
    """Whether the link ``name`` in ``folder`` points to a folder that holds it."""
    path = folder / name
    return path.is_symlink() and folder.resolve().is_relative_to(path.resolve())


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_records(files: dict[str, FileRecord]) -> str:
    """The digest of a folder from its file records."""
    lines = [f"{name}\0{record['size']}\0{record['sha256']}\n" for name, record in sorted(files.items())]
    return "sha256:" + hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


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
    for folder, _, names in os.walk(root, topdown=False, onerror=_raise):
        for path in [*(Path(folder, name) for name in names), Path(folder)]:
            if not path.is_symlink():
                path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
                fsync_path(path)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON: readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(value, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def put_in_place(new: Path, target: Path) -> None:
    """Give the folder ``new`` the name ``target`` in one step. What had that name before is then at ``new``, or gone.

    Linux swaps two folders at once. Elsewhere the old one is moved away first: a crash between the two renames leaves no
    ``target``, never a part of one.
    """
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        old = new.with_name(f"{new.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(new, target)
        os.rename(old, new)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names with renameat2; False where the system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    at_cwd, exchange = -100, 2
    return renameat2 is not None and renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0
