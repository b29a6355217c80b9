"""Every similar pair between held-out rows and the others, with none missed: the check that a split does not leak.

Band keys find nearly all similar pairs; this finds all. A text of s shingles that has Jaccard similarity t or more with
another shares one of its s - ceil(t s) + 1 rarest shingles with it, in any order of the shingles that both keep to (prefix
filtering, Chaudhuri et al. 2006; Bayardo et al. 2007); and the place of a shared shingle in both bounds what the two can
still share (positional filter, Xiao et al. 2008). Few pairs are left to compare. The order is by rarity among the held-out
texts, so that most texts have no shingle in common with a prefix at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftcli.data.hashing import Lookup
from ftcli.data.pairs import Pairs, slices
from ftcli.data.shingles import SHIFT, Shingles, jaccard

MOST_RARITY_BITS = 22
"""Hashes are counted by that many of their upper bits; one count for several only makes the order less sharp."""
MOST_TEXTS = 1 << 16
BLOCK_SHINGLES = 1 << 20
MOST_MATCHES = 1 << 21
"""Matches of shingles looked at at a time."""
ROUNDING = 1e-9


def cross_pairs(held_out: Shingles, others: Iterable[Shingles], threshold: float = 0.7) -> Pairs:
    """All pairs of a held-out text (left) and one of the other texts (right, counted on over their blocks).

    A pair's Jaccard similarity is at least ``threshold``; texts without shingles are like nothing. Memory grows with
    ``held_out``; a larger set can be checked in parts.
    """
    index = _Index.of(held_out, threshold)
    found: list[Pairs] = []
    count = 0
    for block in others:
        for left, right in index.candidates(block):
            for first, last in slices(held_out.sizes[left] + block.sizes[right], BLOCK_SHINGLES):
                part = slice(first, last)
                alike = jaccard(held_out.take(left[part]), block.take(right[part]))
                found.append(Pairs(left[part], right[part] + count, alike).take(alike >= threshold))
        count += len(block)
    pairs = Pairs.joined(found)
    _, once = np.unique(np.stack([pairs.left, pairs.right]), axis=1, return_index=True)
    return pairs.take(once)


@dataclass(frozen=True, slots=True)
class _Index:
    """The held-out texts by the shingles of their prefixes."""

    threshold: float
    counts: NDArray[np.uint16]
    sizes: NDArray[np.int64]
    lookup: Lookup
    starts: NDArray[np.int64]
    """Where the entries of each looked-up hash begin in ``texts`` and ``places``, and the end."""
    texts: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, held_out: Shingles, threshold: float) -> _Index:
        bits = min(MOST_RARITY_BITS, len(held_out.values).bit_length() + 2)
        counted = np.bincount(held_out.values >> np.uint32(32 - bits), minlength=1 << bits)
        counts = np.minimum(counted, 0xFFFF).astype(np.uint16)
        hashes, texts, places = _prefixes(held_out, counts, threshold)
        order = np.argsort(hashes, kind="stable")
        keys, starts = np.unique(hashes[order], return_index=True)
        starts = np.append(starts, len(order))
        return cls(threshold, counts, held_out.sizes, Lookup.of(keys), starts, texts[order], places[order])

    def candidates(self, block: Shingles) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of a held-out text and a text of ``block`` that may be similar; few come twice."""
        hashes, texts, places = _prefixes(block, self.counts, self.threshold)
        match, key = self.lookup.find(hashes)
        first, count = self.starts[key], self.starts[key + 1] - self.starts[key]
        for start, stop in slices(count, MOST_MATCHES):
            counted = count[start:stop]
            begin = np.cumsum(counted) - counted
            entry = np.arange(counted.sum()) + np.repeat(first[start:stop] - begin, counted)
            here = np.repeat(match[start:stop], counted)
            left, right = self.texts[entry], texts[here]
            is_possible = self._is_possible(self.sizes[left], block.sizes[right], self.places[entry], places[here])
            pairs = np.unique(left[is_possible] << 32 | right[is_possible])
            yield pairs >> 32, pairs & 0xFFFFFFFF

    def _is_possible(
        self,
        left_size: NDArray[np.int64],
        right_size: NDArray[np.int64],
        left: NDArray[np.int64],
        right: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Whether texts of these sizes can be similar if the shingles at these places are the first they share."""
        needed = self.threshold / (1 + self.threshold) * (left_size + right_size)
        shared = np.minimum(left_size - left, right_size - right)  # this shingle, and all that follow
        is_possible: NDArray[np.bool_] = shared >= needed - ROUNDING
        return is_possible


def _prefixes(
    shingles: Shingles, counts: NDArray[np.uint16], threshold: float
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """The shingles of each text's prefix, rarest first: hashes, texts and places in the text's order."""
    hashes, texts, places = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    lengths = np.where(shingles.sizes > 0, shingles.sizes - np.ceil(threshold * shingles.sizes - ROUNDING) + 1, 0)
    for first, last in slices(shingles.sizes + BLOCK_SHINGLES // MOST_TEXTS, BLOCK_SHINGLES):
        part = slice(shingles.offsets[first], shingles.offsets[last])
        values = shingles.values[part]
        text = np.repeat(np.arange(first, last), shingles.sizes[first:last])
        rarity = counts[values >> np.uint32(33 - len(counts).bit_length())].astype(np.uint64)
        keyed = (text - first).astype(np.uint64) << np.uint64(48) | rarity << SHIFT | values
        keyed.sort()
        place = np.arange(part.start, part.stop) - shingles.offsets[text]
        is_prefix = place < lengths[text]
        hashes.append(keyed[is_prefix].astype(np.uint32))
        texts.append(text[is_prefix])
        places.append(place[is_prefix])
    return np.concatenate(hashes), np.concatenate(texts), np.concatenate(places)
