"""Digests of inputs from outside a run, remembered so that a large model is read once and not at every command.

A remembered digest is used only while path, size, inode and the times of the last write and of the last change of the inode are
the same (the second cannot be set back by `cp -p` or `touch`). A file that was changed within two seconds before it was read is not
remembered, since a later change could leave the same time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import FileRecord, digest_records, file_sha256, walk, write_json
from ftcli.core.places import cache_dir

FRESH_S = 2.0


def content_digest(root: Path) -> str:
    """The digest of a file or folder, as `ftcli.core.artifacts.digest_records` defines it."""
    return files_digest({path.relative_to(root).as_posix() if path != root else path.name: path for path in walk(root)})


def files_digest(paths: Mapping[str, Path]) -> str:
    """The digest of files under the names given to them."""
    store = cache_dir() / "digests.json"
    known = _load(store)
    fresh: dict[str, str] = {}
    files: dict[str, FileRecord] = {}
    for name, path in paths.items():
        stat = path.stat()
        key = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}"
        digest = known.get(key)
        if digest is None:
            digest = file_sha256(path)
            if time.time() - max(stat.st_mtime, stat.st_ctime) > FRESH_S:
                fresh[key] = digest
        files[name] = {"size": stat.st_size, "sha256": digest}
    if fresh:
        with suppress(OSError):  # a home that cannot be written costs time, not correctness
            store.parent.mkdir(parents=True, exist_ok=True)
            write_json(store, _load(store) | fresh)
    return digest_records(files)


def _load(store: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
