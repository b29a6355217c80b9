"""Pairs of rows with their similarity, and work cut into parts of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pairs(NamedTuple):
    """Pairs of rows, each once, with their similarity."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    jaccard: NDArray[np.float64]

    def take(self, which: NDArray[Any]) -> Pairs:
        """The pairs at these places, or those that a mask marks."""
        return Pairs(self.left[which], self.right[which], self.jaccard[which])

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        if not parts:
            return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def slices(sizes: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Consecutive parts, as first and last + 1, whose ``sizes`` sum up to no more than ``most`` (or that are one item)."""
    sums = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        last = int(np.searchsorted(sums, most + (sums[first - 1] if first else 0), side="right"))
        last = max(last, first + 1)
        yield first, last
        first = last
