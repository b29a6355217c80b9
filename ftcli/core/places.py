"""Folders outside any run directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where ftcli keeps what can be had again: FTCLI_CACHE, else ftcli under XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("FTCLI_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftcli"
