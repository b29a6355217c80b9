"""Near-duplicates: pairs that share a band key, verified by exact Jaccard similarity, made into clusters or groups.

Removal goes by leaders, not by connected components: in the order of ``rank`` a row is removed if it is similar enough to one
that was kept, so every removed row is similar to the row that stays and a chain of small differences removes nothing else.
Groups, which a split must not tear apart, are connected components, for there a chain does matter.

Shingles are asked for when a pair is verified (``views``) and forgotten afterwards, so memory grows with the rows' keys only.
No list of all pairs of a bucket is made: a bucket is compared with one of its rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftcli.data.minhash import NO_KEY
from ftcli.data.shingles import SHIFT, Shingles, jaccard
from ftcli.data.similar import Pairs, slices

View = Callable[[NDArray[np.int64]], Shingles]
"""Gives the shingles of one text of each of the rows asked for, in that order."""

BUCKET_PAIRS = 1 << 16
LEAST_HEADS = 8
"""A bucket of n rows is compared in vain with at most max(8, 65,536 / n) of them, so unlike rows that share a long header
cost 8 n comparisons in a large bucket, not n^2; up to 256 rows all pairs are compared."""
PRODUCTIVE = 256
"""A comparison that finds one near-duplicate in so many rows is not in vain."""
PAIR_CHARACTERS = 1 << 21
"""Characters whose shingles are compared at a time."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What must be known of each row [n] to find what is similar to it."""

    keys: NDArray[np.uint32]
    """Band keys [n, bands]."""
    rank: NDArray[np.int64]
    """The order by content (`dedup.rank_by`), a permutation: of two near-duplicates the lower stays."""
    characters: NDArray[np.int64]
    """About how long the row is; bounds the memory of comparisons, decides nothing."""
    views: Sequence[View]
    """The similarity of two rows is the least of the Jaccard similarities of their texts in these views."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """``leader`` [n] is the kept row that a removed row is like, -1 for kept rows; ``similarity`` [n] to it, else 0.

    ``flagged`` are pairs of kept rows that are similar, but not enough to remove one.
    """

    leader: NDArray[np.int64]
    similarity: NDArray[np.float64]
    flagged: Pairs

    @property
    def largest(self) -> int:
        """Rows of the largest cluster, its leader included; 0 if nothing was removed."""
        removed = self.leader[self.leader >= 0]
        return int(np.bincount(removed).max()) + 1 if len(removed) else 0


def assign_leaders(columns: Columns, guard: NDArray[np.uint64], remove: float = 0.9, flag: float = 0.8) -> Clusters:
    """Which rows go because they are near-duplicates (similarity ``remove`` or more) of rows that stay.

    Rows with different ``guard`` [n] are never compared. A row is compared with kept rows of lower rank; of several alike
    that are kept in one round, the most similar leads, of equals the one of lowest rank. Greedy leader clustering
    (Hartigan 1975), in rounds: a row that is first in all its buckets is kept, compared with the others in them, and leaves.
    """
    order = np.argsort(columns.rank)
    labels = guard[order]
    bucket, row = _buckets(columns.keys[order], labels)
    heads_left = _most_heads(bucket)
    leader, similarity = np.full(len(order), -1), np.zeros(len(order))
    found: list[Pairs] = []
    while len(row):
        is_first = _is_first(bucket)
        first = np.flatnonzero(is_first)
        is_waiting = np.zeros(len(order), dtype=bool)
        is_waiting[row[~is_first]] = True
        head = np.where(is_waiting[row[first]], -1, row[first])
        pairs = _compare(columns, order, *_stars(head, first, row, labels, apart=False), flag)
        is_near = pairs.jaccard >= remove
        near = pairs.take(is_near)
        found.append(pairs.take(~is_near))
        near = near.take(np.lexsort((near.left, -near.jaccard, near.right)))
        best = near.take(_is_first(near.right))
        leader[best.right], similarity[best.right] = best.left, best.jaccard
        is_removed = leader[row] >= 0
        removed = np.add.reduceat(is_removed.astype(np.int64), first)
        in_vain = removed * PRODUCTIVE < np.diff(np.append(first, len(row)))
        heads_left[bucket[first]] -= (head >= 0) & in_vain
        is_head = is_first & ~is_waiting[row]
        is_open = ~is_removed & ~is_head & (heads_left[bucket] > 0)
        bucket, row = bucket[is_open], row[is_open]
    return _clusters(order, leader, similarity, found)


def group(columns: Columns, threshold: float = 0.7, equal: Sequence[NDArray[np.uint64]] = ()) -> NDArray[np.int64]:
    """The group [n] of each row, named by its member of lowest rank.

    Rows are of one group if a chain joins them of which each link is a similarity of at least ``threshold`` or an equal
    value in one of the columns ``equal`` [n]. Links that no band key shows are missed: see `ftcli.data.leakage`.
    """
    order = np.argsort(columns.rank)
    parent = np.arange(len(order))
    for column in equal:
        by_value = np.argsort(column[order], kind="stable")
        same = column[order[by_value[1:]]] == column[order[by_value[:-1]]]
        _join(parent, by_value[1:][same], by_value[:-1][same])
    bucket, row = _buckets(columns.keys[order], np.zeros(len(order), dtype=np.uint64))
    heads_left = _most_heads(bucket)
    while len(row):
        is_first = _is_first(bucket)
        first = np.flatnonzero(is_first)
        pairs = _compare(columns, order, *_stars(row[first], first, row, parent, apart=True), threshold)
        _join(parent, pairs.left, pairs.right)
        heads_left[bucket[first]] -= 1
        is_open = ~is_first & (heads_left[bucket] > 0)
        bucket, row = _not_joined(bucket[is_open], row[is_open], parent)
    return _named(order, parent)


def merge(groups: NDArray[np.int64], rank: NDArray[np.int64], pairs: Pairs) -> NDArray[np.int64]:
    """``groups`` (as `group` names them) with those of each pair made one."""
    order = np.argsort(rank)
    parent = rank[groups][order]
    _join(parent, rank[pairs.left], rank[pairs.right])
    return _named(order, parent)


def similarities(
    left: NDArray[np.int64], right: NDArray[np.int64], columns: Columns, least: float
) -> NDArray[np.float64]:
    """The similarity of each pair of rows, exact where it is ``least`` or more, else anything below that."""
    found = np.ones(len(left))
    for first, last in slices(columns.characters[left] + columns.characters[right], PAIR_CHARACTERS):
        place = np.arange(first, last)
        for view in columns.views:
            place = place[found[place] >= least]
            rows, where = np.unique(np.concatenate([left[place], right[place]]), return_inverse=True)
            if len(rows):
                sets = view(rows)
                alike = jaccard(sets.take(where[: len(place)]), sets.take(where[len(place) :]))
                found[place] = np.minimum(found[place], alike)
    return found


def _buckets(keys: NDArray[np.uint32], guard: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that share a band key and the guard with another row: their buckets, ascending, and rows, ascending in each."""
    buckets, rows, count = [], [], 0
    place = np.arange(len(keys), dtype=np.uint64)
    mixed = (guard * np.uint64(0x9E3779B97F4A7C15)) >> SHIFT
    for band in range(keys.shape[1]):
        has_key = keys[:, band] != NO_KEY
        keyed = np.sort((keys[has_key, band] ^ mixed[has_key]) << SHIFT | place[has_key])
        is_first = _is_first(keyed >> SHIFT)
        is_shared = ~is_first
        is_shared[:-1] |= ~is_first[1:]
        buckets.append(np.cumsum(is_first[is_shared]) - 1 + count)
        rows.append((keyed[is_shared] & np.uint64(NO_KEY)).astype(np.int64))
        count += int(is_first[is_shared].sum())
    if not buckets:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(buckets), np.concatenate(rows)


def _most_heads(bucket: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of its rows each bucket may be compared with in vain."""
    sizes = np.maximum(np.bincount(bucket), 1)
    most: NDArray[np.int64] = np.maximum(LEAST_HEADS, BUCKET_PAIRS // sizes)
    return most


def _is_first(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the ``values`` differ from the one before."""
    is_first = np.ones(len(values), dtype=bool)
    is_first[1:] = values[1:] != values[:-1]
    return is_first


def _stars(
    head: NDArray[np.int64], first: NDArray[np.int64], row: NDArray[np.int64], label: NDArray[Any], apart: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair of a bucket's ``head`` (-1 for none) and another of its rows, whose labels differ if ``apart``, else agree."""
    left = np.repeat(head, np.diff(np.append(first, len(row))))
    is_pair = (left >= 0) & (left != row) & ((label[left] != label[row]) == apart)
    pairs = np.unique(left[is_pair] << 32 | row[is_pair])
    return pairs >> 32, pairs & 0xFFFFFFFF


def _compare(
    columns: Columns, order: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64], least: float
) -> Pairs:
    """Those pairs of places in ``order`` whose rows are similar."""
    jaccard_of = similarities(order[left], order[right], columns, least)
    return Pairs(left, right, jaccard_of).take(jaccard_of >= least)


def _clusters(
    order: NDArray[np.int64], leader: NDArray[np.int64], similarity: NDArray[np.float64], found: list[Pairs]
) -> Clusters:
    """From places in ``order`` to rows; of the pairs found those of which both rows are kept."""
    pairs = Pairs.joined(found)
    pairs = pairs.take(leader[pairs.right] < 0)
    pairs = pairs.take(np.lexsort((pairs.right, pairs.left)))
    back = np.argsort(order)
    return Clusters(
        np.where(leader < 0, -1, order[leader])[back],
        similarity[back],
        Pairs(order[pairs.left], order[pairs.right], pairs.jaccard),
    )


def _join(parent: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
    """Make one component of each pair's two. ``parent`` [n] leads each place to the lowest of its component in one step."""
    while True:
        low, high = np.minimum(parent[left], parent[right]), np.maximum(parent[left], parent[right])
        is_apart = low != high
        if not is_apart.any():
            return
        left, right = left[is_apart], right[is_apart]
        np.minimum.at(parent, high[is_apart], low[is_apart])
        while not np.array_equal(above := parent[parent], parent):
            parent[:] = above


def _not_joined(
    bucket: NDArray[np.int64], row: NDArray[np.int64], parent: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The buckets whose rows are of several components."""
    if not len(row):
        return bucket, row
    first = np.flatnonzero(_is_first(bucket))
    component = parent[row]
    is_open = np.minimum.reduceat(component, first) < np.maximum.reduceat(component, first)
    is_open = np.repeat(is_open, np.diff(np.append(first, len(row))))
    return bucket[is_open], row[is_open]


def _named(order: NDArray[np.int64], parent: NDArray[np.int64]) -> NDArray[np.int64]:
    named = np.empty_like(order)
    named[order] = order[parent]
    return named
