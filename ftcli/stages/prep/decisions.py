"""What became of each row beside all the others: filled in by `compare` and `splits`, read when files are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftcli.data.records import Reason
from ftcli.data.split import hexadecimal
from ftcli.stages.prep.chunks import ID_DIGITS, Store

Indices = NDArray[np.int64]

REFUSALS = (
    ("exact duplicates", Reason.EXACT_DUPLICATE),
    ("near duplicates", Reason.NEAR_DUPLICATE),
    ("contamination", Reason.CONTAMINATED),
    ("conflicts", Reason.CONFLICT),
    ("limit", Reason.OVER_LIMIT),
)
"""Step and reason of each refusal code, which counts from 1; 0 is kept."""
EXACT, NEAR, CONTAMINATED, CONFLICT, OVER_LIMIT = range(1, 6)
BLOCK_ROWS = 8192
"""Rows whose texts are in memory at a time."""
NEVER = 1.1
"""A similarity that no two rows have."""


@dataclass
class Decisions:
    """For each row [n]: why it is refused (0: kept), the row it repeats (-1: none), its split, group, and draw in [0, 1)."""

    refusal: NDArray[np.uint8]
    repeats: Indices
    similarity: NDArray[np.float64]
    split: NDArray[np.int8]
    group: Indices
    draws: NDArray[np.float64]
    compared: int
    """Rows that came out of the first pass."""
    details: dict[int, str] = field(default_factory=dict)
    flags: list[tuple[int, str, str]] = field(default_factory=list)
    """(row, kind, detail) of what a person should look at."""
    near_pairs: list[tuple[int, int, float, str]] = field(default_factory=list)
    """(row, the row it is like, similarity, removed or flagged)."""
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    duplicates: dict[str, Any] = field(default_factory=dict)
    contamination: list[dict[str, Any]] = field(default_factory=list)
    conflict_counts: dict[str, Any] = field(default_factory=dict)
    leakage: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> Indices:
        return np.flatnonzero(self.refusal == 0)

    def detail(self, store: Store, index: int, reason: str) -> str:
        """Why a row was refused, for rejects.jsonl."""
        if index in self.details:
            return self.details[index]
        if reason == Reason.OVER_LIMIT:
            return "not among the rows drawn (limit)"
        other = store.row(int(self.repeats[index]))
        place = f"{other['meta']['file']}:{other['meta']['line']}, id {other['id']}"
        if reason == Reason.EXACT_DUPLICATE:
            return f"the same as {place}"
        return f"similarity {self.similarity[index]:.3f} to {place}"


def ids_of(keys: NDArray[np.uint64]) -> Iterator[str]:
    """The ids of rows with these exact keys [n, 2]."""
    return hexadecimal(keys, ID_DIGITS)


def blocks_of(indices: Indices) -> Iterator[Indices]:
    """Consecutive parts of `BLOCK_ROWS`; one empty part of none."""
    for first in range(0, max(len(indices), 1), BLOCK_ROWS):
        yield indices[first : first + BLOCK_ROWS]
