"""Texts as sets of hashed shingles, and the exact Jaccard similarity of such sets.

A shingle is a window of five characters of the normalised text; of edited copies of short rows, windows of three words would miss
half. All texts of a call are hashed at once: a polynomial over each window, then the finaliser of MurmurHash3. A hash has 32 bits,
so of the 2 x 200 shingles of two rows two are taken for one in 1 of 50,000 pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftcli.data.dedup import normalise
from ftcli.data.hashing import (
    MULTIPLIER,
    Lookup,
    code_points,
    counts_of,
    mix32,
    offsets_of,
    polynomial,
    text_blocks,
    whole_windows,
)

CHARACTERS = 5
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The sets of n texts: that of text i is ``values[offsets[i]:offsets[i + 1]]``, ascending, each hash once."""

    values: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def take(self, texts: NDArray[np.int64]) -> Shingles:
        """The sets of ``texts``, in that order; a text may occur more than once."""
        sizes = self.sizes[texts]
        offsets = offsets_of(sizes)
        positions = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][texts] - offsets[:-1], sizes)
        return Shingles(self.values[positions], offsets)

    def keyed(self) -> NDArray[np.uint64]:
        """All shingles as ``text << 32 | hash``, ascending."""
        texts = np.repeat(np.arange(len(self), dtype=np.uint64), self.sizes)
        return texts << SHIFT | self.values


def shingle(texts: Sequence[str]) -> Shingles:
    """The shingles of each text's `normalise`d form.

    A text shorter than a shingle is padded to one; only a text without any character but white space has none.
    """
    parts = [_characters(block) for block in text_blocks([normalise(text) for text in texts])]
    if not parts:
        return Shingles(np.zeros(0, np.uint32), np.zeros(1, np.int64))
    return concatenate(parts)


def concatenate(parts: Sequence[Shingles]) -> Shingles:
    """The sets of all ``parts``, one after the other."""
    sizes = np.concatenate([part.sizes for part in parts])
    return Shingles(np.concatenate([part.values for part in parts]), offsets_of(sizes))


def jaccard(left: Shingles, right: Shingles) -> NDArray[np.float64]:
    """Shared over all shingles of text i of ``left`` and text i of ``right``; two empty texts are alike (1)."""
    both = np.concatenate([left.keyed(), right.keyed()])
    both.sort(kind="stable")  # merges two ascending runs, four times as fast as sorting them anew
    shared = both[1:][both[1:] == both[:-1]] >> SHIFT
    common = np.bincount(shared.astype(np.int64), minlength=len(left))
    union = left.sizes + right.sizes - common
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)


def boilerplate_of(sample: Shingles, share: float = 0.05, minimum: int = 50) -> NDArray[np.uint32]:
    """Shingles, ascending, that occur in more than ``share`` of the sample's texts and in at least ``minimum`` of them."""
    values, counts = np.unique(sample.values, return_counts=True)
    return values[counts >= max(minimum, int(share * len(sample)) + 1)]


def drop(shingles: Shingles, boilerplate: NDArray[np.uint32]) -> Shingles:
    """``shingles`` without ``boilerplate`` (ascending); a text of nothing else keeps all of its own."""
    if not len(boilerplate):
        return shingles
    is_kept = np.ones(len(shingles.values), dtype=bool)
    is_kept[Lookup.of(boilerplate).find(shingles.values)[0]] = False
    left = counts_of(is_kept, shingles.offsets)
    is_kept |= np.repeat(left == 0, shingles.sizes)
    return Shingles(shingles.values[is_kept], offsets_of(np.where(left, left, shingles.sizes)))


def _characters(texts: Sequence[str]) -> Shingles:
    padded = [text.ljust(CHARACTERS, "\0") if text else text for text in texts]
    offsets = offsets_of(np.fromiter(map(len, padded), dtype=np.int64, count=len(padded)))
    is_whole, sizes = whole_windows(offsets, CHARACTERS)
    hashes = polynomial(code_points("".join(padded)), CHARACTERS, MULTIPLIER.astype(np.uint32))
    return _as_sets(mix32(hashes[is_whole]), sizes)


def _as_sets(hashes: NDArray[np.uint32], sizes: NDArray[np.int64]) -> Shingles:
    offsets = offsets_of(sizes)
    keyed = Shingles(hashes, offsets).keyed()
    keyed.sort()
    is_first = np.ones(len(keyed), dtype=bool)
    is_first[1:] = keyed[1:] != keyed[:-1]
    return Shingles((keyed[is_first] & LOW).astype(np.uint32), offsets_of(counts_of(is_first, offsets)))
