"""Checkpoints that are whole or absent.

transformers writes into ``checkpoint-N`` itself and resumes from the largest N, finished or not, so a run killed while
saving cannot be resumed. Here a checkpoint is written elsewhere, flushed to disk, marked ``COMPLETE`` and renamed to
``step-N``; only marked ones are ever found.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import fsync_path, fsync_tree, write_json
from ftcli.core.errors import DiskError

MARKER = "COMPLETE"
SLACK = 1.1


def require_space(folder: Path, expected_bytes: int) -> None:
    """Raise `DiskError` unless the disk of ``folder`` has room for a checkpoint as large as the last one, or as ``expected_bytes``.

    To be called before writing: the newest checkpoint stays until the next one is whole, so both must fit.
    """
    last = newest(folder)
    size = sum(path.stat().st_size for path in last[0].rglob("*") if path.is_file()) if last else expected_bytes
    disk = os.statvfs(folder if folder.exists() else folder.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < SLACK * size:
        kept = f"; the checkpoint of step {last[1]} is kept" if last else ""
        raise DiskError(
            f"{folder}: a checkpoint takes about {SLACK * size / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free{kept}",
            "free some space and run the same command again, or name another disk with --run",
        )


def seal(written: Path, folder: Path, step: int, progress: dict[str, Any]) -> Path:
    """Move the checkpoint at ``written`` to ``folder/step-N`` with ``progress``, then drop the older ones.

    Both must lie on one file system. The older checkpoint goes only after the new one is in place.
    """
    write_json(written / MARKER, {"step": step, "progress": progress})
    fsync_tree(written)
    target = folder / f"step-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    written.rename(target)
    fsync_path(folder)
    for older in folder.glob("step-*"):
        if older != target:
            shutil.rmtree(older)
    return target


def newest(folder: Path) -> tuple[Path, int, dict[str, Any]] | None:
    """``(folder, step, progress)`` of the last complete checkpoint, or None."""
    found = []
    for path in folder.glob("step-*"):
        try:
            record = json.loads((path / MARKER).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        found.append((path, int(record["step"]), record["progress"]))
    return max(found, key=lambda item: item[1], default=None)
