"""MinHash signatures (Broder 1997) cut into bands: similar texts share a band key, others seldom do.

Of two texts with Jaccard similarity J, one of ``bands`` keys of ``rows`` minima each is equal with probability
1 - (1 - J^rows)^bands. So 10 bands of 6 find .9995 of the pairs at J = .9 and .95 at .8, for removal; 28 of 5 find .994 at .7,
for groups. (24 of 4 find .999, but take ten times as many unrelated texts for candidates, which costs more than it saves.)
Keys are candidates only: `ftcli.data.near` verifies each pair.

The hash functions are multiplications of the (already mixed) shingles by fixed odd numbers, modulo 2^32. The numbers are
the project's own and never change, so keys from different runs and machines can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ftcli.data.shingles import Shingles

NO_KEY = np.uint32(0xFFFFFFFF)
"""All keys of a text without shingles; it matches nothing."""
BLOCK_SHINGLES = 1 << 15
"""Shingles whose minima are taken at a time: their arrays stay in a core's cache."""
MASK = 2**64 - 1


def band_keys(shingles: Shingles, bands: int, rows: int) -> NDArray[np.uint32]:
    """The keys of each text's bands: [n, bands]; texts that share a key in a column may be similar."""
    keys = np.full((len(shingles), bands), NO_KEY)
    texts = np.flatnonzero(shingles.sizes)
    starts = shingles.offsets[:-1][texts]
    for first, last in _blocks(starts, len(shingles.values)):
        end = starts[last] if last < len(starts) else len(shingles.values)
        values = shingles.values[starts[first] : end]
        keys[texts[first:last]] = _keys(values, starts[first:last] - starts[first], bands, rows)
    return keys


def _blocks(starts: NDArray[np.int64], end: int) -> Iterator[tuple[int, int]]:
    """Consecutive texts of about `BLOCK_SHINGLES` shingles in all, as first and last + 1."""
    first = 0
    while first < len(starts):
        last = int(np.searchsorted(starts, starts[first] + BLOCK_SHINGLES))
        yield first, max(last, first + 1)
        first = max(last, first + 1)


def _keys(values: NDArray[np.uint32], starts: NDArray[np.int64], bands: int, rows: int) -> NDArray[np.uint32]:
    keys = np.zeros((len(starts), bands), dtype=np.uint32)
    hashes = np.empty_like(values)
    for index, multiplier in enumerate(multipliers(bands * rows)):
        np.multiply(values, multiplier, out=hashes)
        key = keys[:, index // rows]
        key ^= np.minimum.reduceat(hashes, starts)
        key *= np.uint32(0x9E3779B1)
        key ^= key >> np.uint32(15)
    keys[keys == NO_KEY] = 0
    return keys


@cache
def multipliers(count: int) -> NDArray[np.uint32]:
    """The first ``count`` odd numbers of a SplitMix64 sequence (Steele, Lea and Flood 2014) that starts at 0."""
    numbers, state = [], 0
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(((mixed ^ (mixed >> 31)) >> 32) | 1)
    return np.array(numbers, dtype=np.uint32)
