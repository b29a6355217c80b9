"""Which rows repeat items of an evaluation set, also embedded in longer text, reformatted or lightly edited.

The measure is containment, the share of an item's word 3-grams that the row has: Jaccard similarity misses an item inside a
longer text, and a single shared n-gram of 8 to 13 words (GPT-3, Brown et al. 2020) misses edits or takes common phrases for
copies. A shared 13-gram is only flagged. Words are runs of letters and digits, so punctuation and markup do not count.

A half of few n-grams proves little: "What is the capital of Spain?" has three of the four of "... of France?". So at least
`LEAST_SHARED` must be shared, or all of an item that has fewer; and an item of under `LEAST_WORDS` words must be the whole
prompt of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from ftcli.data.dedup import normalise
from ftcli.data.hashing import Lookup, ngrams, text_blocks, words_of

NGRAM, LONG_NGRAM = 3, 13
LEAST_WORDS = 5
LEAST_SHARED = 8
COMMON_ITEMS, COMMON_SHARE, RARE_ITEMS = 50, 0.25, 3
"""An n-gram of more than 50 items, or of more than a quarter of a smaller set (but over 3), belongs to no item: a template."""


@dataclass(frozen=True, slots=True)
class Matches:
    """For each row [n] the item it contains most of, and how much. ``item`` is -1 for a row that shares nothing.

    ``containment`` is of the item's n-grams that are its own, in [0, 1].
    """

    item: NDArray[np.int64]
    containment: NDArray[np.float64]
    contaminated: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    """Shares a 13-gram with some item."""


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Pairs [k] of a row and an item that it repeats, and the share of the item's own 3-grams that it has."""

    row: NDArray[np.int64]
    item: NDArray[np.int64]
    containment: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EvaluationIndex:
    """The word n-grams of an evaluation set, and which of its items hold them."""

    sizes: NDArray[np.int64]
    """How many 3-grams of its own each item has."""
    grams: Holders
    long_grams: Holders
    whole: dict[int, int]
    """The items without such 3-grams, by the key of their text."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> EvaluationIndex:
        """The index of items with these texts: their questions, or whatever else must not be learnt by heart."""
        normal = [normalise(text) for text in texts]
        words, offsets = words_of(normal)
        first = {text: place for place, text in reversed(list(enumerate(normal)))}
        is_used = np.diff(offsets) >= LEAST_WORDS
        is_used &= np.array([first[text] == place for place, text in enumerate(normal)], dtype=bool)
        grams = Holders.of(words, offsets, NGRAM, is_used)
        sizes = np.bincount(grams.items, minlength=len(texts))
        whole = {_key(text): place for text, place in first.items() if text and not sizes[place]}
        return cls(sizes, grams, Holders.of(words, offsets, LONG_NGRAM, is_used), whole)

    def match(self, texts: Sequence[str], prompts: Sequence[str], threshold: float = 0.5) -> Matches:
        """Compare rows with the items: their whole ``texts``, and their ``prompts`` with items too short for n-grams.

        A row is contaminated if it has ``threshold`` or more of an item's 3-grams, and enough of them (see above).
        """
        found = Matches(
            np.full(len(texts), -1), np.zeros(len(texts)), np.zeros(len(texts), bool), np.zeros(len(texts), bool)
        )
        begin = 0
        for block in text_blocks([normalise(text) for text in texts]):
            self._match_block(block, threshold, found, begin)
            begin += len(block)
        for row, prompt in enumerate(prompts):
            item = self.whole.get(_key(normalise(prompt))) if self.whole else None
            if item is not None and not found.contaminated[row]:
                found.item[row], found.containment[row], found.contaminated[row] = item, 1.0, True
        return found

    def overlaps(self, texts: Sequence[str], threshold: float = 0.5) -> Overlaps:
        """Every pair of a row and an item it repeats: the row is contaminated with it (see `match`) or shares a 13-gram with it."""
        found = [np.zeros((2, 0), np.int64)], [np.zeros(0)]
        begin, count = 0, max(len(self.sizes), 1)
        for block in text_blocks([normalise(text) for text in texts]):
            words, offsets = words_of(block)
            row, item, shared = self._shared(words, offsets)
            is_contaminated = self._is_enough(item, shared, threshold)
            long_row, long_item = self.long_grams.find(words, offsets)
            known = row * count + item
            pairs = np.union1d(known[is_contaminated], long_row * count + long_item)
            place = np.minimum(np.searchsorted(known, pairs), max(len(known) - 1, 0))
            # a 13-gram of the item's own may consist of 3-grams that many items have
            is_known = known[place] == pairs if len(known) else np.zeros(len(pairs), bool)
            share = np.zeros(len(pairs))
            share[is_known] = (shared / self.sizes[item])[place[is_known]]
            found[0].append(np.stack(np.divmod(pairs, count)) + np.array([[begin], [0]]))
            found[1].append(share)
            begin += len(block)
        row, item = np.concatenate(found[0], axis=1)
        return Overlaps(row, item, np.concatenate(found[1]))

    def _match_block(self, texts: list[str], threshold: float, found: Matches, begin: int) -> None:
        words, offsets = words_of(texts)
        long_row, _ = self.long_grams.find(words, offsets)
        found.flagged[begin + long_row] = True
        row, item, shared = self._shared(words, offsets)
        is_contaminated = self._is_enough(item, shared, threshold)
        size = self.sizes[item]
        order = np.lexsort((item, -shared / size, ~is_contaminated, row))
        order = order[np.diff(row[order], prepend=-1) > 0]
        place = begin + row[order]
        found.item[place], found.containment[place] = item[order], (shared / size)[order]
        found.contaminated[place] = is_contaminated[order]

    def _shared(
        self, words: NDArray[np.uint64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of a text and an item, and how many 3-grams each pair shares."""
        row, item = self.grams.find(words, offsets)
        pairs, shared = np.unique(row * len(self.sizes) + item, return_counts=True)
        row, item = np.divmod(pairs, max(len(self.sizes), 1))
        return row, item, shared

    def _is_enough(self, item: NDArray[np.int64], shared: NDArray[np.int64], threshold: float) -> NDArray[np.bool_]:
        size = self.sizes[item]
        is_enough: NDArray[np.bool_] = shared >= np.maximum(np.ceil(threshold * size), np.minimum(size, LEAST_SHARED))
        return is_enough


@dataclass(frozen=True, slots=True)
class Holders:
    """Which items hold each n-gram of ``size`` words; n-grams of too many items are left out."""

    size: int
    lookup: Lookup
    starts: NDArray[np.int64]
    """Where the items of each n-gram begin in ``items``, and the end."""
    items: NDArray[np.int64]

    @classmethod
    def of(
        cls, words: NDArray[np.uint64], offsets: NDArray[np.int64], size: int, is_used: NDArray[np.bool_]
    ) -> Holders:
        """Of the items with hashed ``words`` from ``offsets`` [n + 1] those that ``is_used`` marks."""
        grams, counts = ngrams(words, offsets, size)
        holder = np.repeat(np.arange(len(is_used)), counts)
        keys, gram = np.unique(grams[is_used[holder]], return_inverse=True)
        entries = np.unique(gram * len(is_used) + holder[is_used[holder]])
        gram, items = np.divmod(entries, max(len(is_used), 1))
        most = min(COMMON_ITEMS, max(RARE_ITEMS, int(COMMON_SHARE * is_used.sum())))
        is_own = np.bincount(gram, minlength=1)[gram] <= most
        own, starts = np.unique(gram[is_own], return_index=True)
        return cls(size, Lookup.of(keys[own]), np.append(starts, is_own.sum()), items[is_own])

    def find(
        self, words: NDArray[np.uint64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each pair of a text and an item that share an n-gram, once for each such n-gram."""
        grams, counts = ngrams(words, offsets, self.size)
        where, key = self.lookup.find(grams)
        text = np.repeat(np.arange(len(counts)), counts)[where]
        shared = np.unique(text * max(len(self.lookup.keys), 1) + key)
        text, key = np.divmod(shared, max(len(self.lookup.keys), 1))
        count = self.starts[key + 1] - self.starts[key]
        begin = np.cumsum(count) - count
        entry = np.arange(count.sum()) + np.repeat(self.starts[key] - begin, count)
        return np.repeat(text, count), self.items[entry]


def _key(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
