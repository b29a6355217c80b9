"""One file with everything a loop needs to go on, replaced in one step: a crash leaves the old or the new one, never
a part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ftcli.core.artifacts import fsync_path

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) to ``folder``: temporary file, fsync, rename."""
    temporary = folder / f".{CHECKPOINT}.tmp"
    torch.save(state, temporary)
    fsync_path(temporary)
    os.replace(temporary, folder / CHECKPOINT)
    fsync_path(folder)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU, or None. Nothing but plain data is unpickled."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
