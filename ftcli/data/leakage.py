"""Every similar pair between held-out rows and the others, with none missed: the check that a split does not leak.

Band keys find nearly all similar pairs; this finds all. Two texts of Jaccard similarity t share at least o = t/(1+t) (a + b) of
their a and b shingles. In any order of the shingles that both keep to, the first l of these lie among the first a - o + l of the
one and b - o + l of the other (prefix filtering, Chaudhuri et al. 2006; with l > 1, Wang et al. 2012). So only pairs that share l
shingles of their prefixes are compared. The order is by rarity among the held-out texts, so that most texts have few shingles in
common with a prefix at all. And before two texts count as sharing any, 256 bits for each must not differ in more places than
the texts may have shingles apart (Sandes et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftcli.data.hashing import Lookup, counts_of
from ftcli.data.shingles import SHIFT, Shingles, jaccard
from ftcli.data.similar import Pairs, slices

MOST_RARITY_BITS = 22
"""Hashes are counted by that many of their upper bits; one count for several only makes the order less sharp."""
MOST_TEXTS = 1 << 16
BLOCK_SHINGLES = 1 << 20
MOST_MATCHES = 1 << 15
"""Matches of shingles looked at at a time: their arrays fit a core's cache."""
SHARED = 4
"""Shingles of the prefixes that a pair shares (l above), or all that it needs if those are fewer. Each makes the prefixes a shingle
longer and leaves fewer pairs to compare: of 91,000 unlike rows, each was compared with 0.15 in vain for 1, and with 0.02 for 4."""
ROUNDING = 1e-9


def cross_pairs(
    held_out: Shingles,
    others: Iterable[Shingles],
    threshold: float = 0.7,
    labels: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Pairs:
    """All pairs of a held-out text (left) and one of the other texts (right, counted on over their blocks).

    A pair's Jaccard similarity is at least ``threshold``; texts without shingles are like nothing. With ``labels`` of the
    held-out [n] and of all other texts [m], only pairs with different ones count. Memory grows with ``held_out``; a larger
    set can be checked in parts.
    """
    index = _Index.of(held_out, threshold)
    found: list[Pairs] = []
    count = 0
    for block in others:
        ours, theirs = labels or (np.zeros(len(held_out)), np.ones(count + len(block)))
        for left, right in index.candidates(block, ours, theirs[count:]):
            for first, last in slices(held_out.sizes[left] + block.sizes[right], BLOCK_SHINGLES):
                part = slice(first, last)
                alike = jaccard(held_out.take(left[part]), block.take(right[part]))
                found.append(Pairs(left[part], right[part] + count, alike).take(alike >= threshold))
        count += len(block)
    pairs = Pairs.joined(found)
    return pairs.take(np.lexsort((pairs.right, pairs.left)))


@dataclass(frozen=True, slots=True)
class _Index:
    """The held-out texts by the shingles of their prefixes."""

    threshold: float
    counts: NDArray[np.uint16]
    sizes: NDArray[np.int64]
    lookup: Lookup
    starts: NDArray[np.int64]
    """Where the texts of each looked-up hash begin in ``texts``, and the end."""
    texts: NDArray[np.int32]
    bits: NDArray[np.uint64]
    most: NDArray[np.int32]
    """Each text's part of the bound that `_most_apart` describes."""

    @classmethod
    def of(cls, held_out: Shingles, threshold: float) -> _Index:
        bits = min(MOST_RARITY_BITS, len(held_out.values).bit_length() + 2)
        counted = np.bincount(held_out.values >> np.uint32(32 - bits), minlength=1 << bits)
        counts = np.minimum(counted, 0xFFFF).astype(np.uint16)
        hashes, texts = _prefixes(held_out, counts, threshold)
        order = np.argsort(hashes, kind="stable")
        keys, starts = np.unique(hashes[order], return_index=True)
        starts = np.append(starts, len(order))
        texts = texts[order].astype(np.int32)  # there are fewer texts than 2^31, and half the bytes to move
        most = _most_apart(held_out.sizes, threshold)
        return cls(threshold, counts, held_out.sizes, Lookup.of(keys), starts, texts, _bits(held_out), most)

    def candidates(
        self, block: Shingles, ours: NDArray[Any], theirs: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of a held-out text and a text of ``block`` with different labels that may be similar."""
        near, bits, most = self._within_reach(block), _bits(block), _most_apart(block.sizes, self.threshold)
        hashes, texts = _prefixes(block.take(near), self.counts, self.threshold)
        match, key = self.lookup.find(hashes)
        first, count = self.starts[key], self.starts[key + 1] - self.starts[key]
        by_text = np.flatnonzero(np.diff(texts[match], prepend=-1, append=-1))  # a text's matches stay together
        for start, stop in slices(np.add.reduceat(count, by_text[:-1]) if len(count) else count, MOST_MATCHES):
            part = slice(by_text[start], by_text[stop])
            counted, text = count[part], near[texts[match[part]]]
            begin = np.cumsum(counted) - counted
            left = self.texts[np.arange(counted.sum()) + np.repeat(first[part] - begin, counted)]
            # Half of the bits tell nearly all unlike texts apart, the rest is for those that they do not.
            apart = sum(
                np.bitwise_count(one[left] ^ np.repeat(other[text], counted))
                for one, other in zip(self.bits[:2], bits[:2], strict=True)
            )
            likely = np.flatnonzero(apart <= self.most[left] + np.repeat(most[text], counted))
            left, right = left[likely].astype(np.int64), np.repeat(text, counted)[likely]
            # 8 bits a number: all 256 differing counts as none, and the pair is compared.
            apart = sum(np.bitwise_count(one[left] ^ other[right]) for one, other in zip(self.bits, bits, strict=True))
            is_wanted = (ours[left] != theirs[right]) & (apart <= self.most[left] + most[right])
            pairs, shared = np.unique(left[is_wanted] << 32 | right[is_wanted], return_counts=True)
            left, right = pairs >> 32, pairs & 0xFFFFFFFF
            needed = self.threshold / (1 + self.threshold) * (self.sizes[left] + block.sizes[right])
            is_possible = shared >= np.minimum(SHARED, needed - ROUNDING)
            yield left[is_possible], right[is_possible]

    def _within_reach(self, block: Shingles) -> NDArray[np.int64]:
        """The texts of ``block`` of whose shingles enough occur in some held-out text, as two similar ones share that many."""
        is_known = _rarity(block.values, self.counts) > 0
        near: NDArray[np.int64] = np.flatnonzero(
            counts_of(is_known, block.offsets) >= np.maximum(self.threshold * block.sizes - ROUNDING, 1)
        )
        return near


def _prefixes(
    shingles: Shingles, counts: NDArray[np.uint16], threshold: float
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The shingles of each text's prefix, rarest first, and whose they are."""
    hashes, texts = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
    lengths = np.where(shingles.sizes > 0, shingles.sizes - np.ceil(threshold * shingles.sizes - ROUNDING) + SHARED, 0)
    for first, last in slices(shingles.sizes + BLOCK_SHINGLES // MOST_TEXTS, BLOCK_SHINGLES):
        part = slice(shingles.offsets[first], shingles.offsets[last])
        values = shingles.values[part]
        text = np.repeat(np.arange(first, last), shingles.sizes[first:last])
        rarity = _rarity(values, counts).astype(np.uint64)
        keyed = (text - first).astype(np.uint64) << np.uint64(48) | rarity << SHIFT | values
        keyed.sort()
        place = np.arange(part.start, part.stop) - shingles.offsets[text]
        is_prefix = place < lengths[text]
        hashes.append(keyed[is_prefix].astype(np.uint32))
        texts.append(text[is_prefix])
    return np.concatenate(hashes), np.concatenate(texts)


def _rarity(hashes: NDArray[np.uint32], counts: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """In how many held-out texts each hash is, or more; never 0 for one that is in any."""
    return counts[hashes >> np.uint32(33 - len(counts).bit_length())]


def _bits(shingles: Shingles) -> NDArray[np.uint64]:
    """[4, n]: of 256 bits, those that a text's shingles set. Of two texts' shingles, each bit that differs is one not shared."""
    is_set = np.zeros((len(shingles), 256), dtype=bool)
    is_set[np.repeat(np.arange(len(shingles)), shingles.sizes), shingles.values >> np.uint32(24)] = True
    return np.ascontiguousarray(np.packbits(is_set, axis=1).view(np.uint64).T)


def _most_apart(sizes: NDArray[np.int64], threshold: float) -> NDArray[np.int32]:
    """How many shingles two similar texts may not share is at most the sum of these of both: each is rounded up."""
    return np.ceil((1 - threshold) / (1 + threshold) * sizes).astype(np.int32)
