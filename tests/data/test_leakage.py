"""The exact search for similar pairs, against brute force over all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ftcli.data import leakage
from ftcli.data.leakage import cross_pairs
from ftcli.data.shingles import Shingles, jaccard, shingle
from ftcli.data.similar import slices
from tests.data.planted import Prose


def sets_of(lists: list[set[int]]) -> Shingles:
    values = [value for items in lists for value in sorted(items)]
    return Shingles(np.array(values, dtype=np.uint32), np.cumsum([0, *map(len, lists)]))


def blocks(sets: Shingles, size: int) -> Iterator[Shingles]:
    for first in range(0, len(sets), size):
        yield sets.take(np.arange(first, min(first + size, len(sets))))


def alike(one: set[int], other: set[int], threshold: float) -> bool:
    return bool(one) and bool(other) and len(one & other) / len(one | other) >= threshold


HASHES = st.integers(0, 30).map(lambda number: number * 0x07654321)
SETS = st.lists(st.sets(HASHES, max_size=25), max_size=25)


@given(SETS, SETS, st.sampled_from([0.3, 0.5, 0.7, 0.8, 1.0]), st.integers(1, 10))
def test_every_similar_pair_of_sets_is_found_and_no_other(
    held_out: list[set[int]], others: list[set[int]], threshold: float, size: int
) -> None:
    pairs = cross_pairs(sets_of(held_out), blocks(sets_of(others), size), threshold)
    expected = [
        (one, other)
        for one in range(len(held_out))
        for other in range(len(others))
        if alike(held_out[one], others[other], threshold)
    ]
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == expected
    assert pairs.jaccard.tolist() == [
        len(held_out[one] & others[other]) / len(held_out[one] | others[other]) for one, other in expected
    ]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_every_similar_pair_of_texts_is_found(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the work is cut into small parts, and with texts from one shingle to a thousand."""
    monkeypatch.setattr(leakage, "BLOCK_SHINGLES", 5000)
    monkeypatch.setattr(leakage, "MOST_MATCHES", 500)
    prose = Prose(1)
    texts = [prose.text(prose.random.choice([1, 3, 10, 40, 150])) for _ in range(100)]
    texts += [prose.edited(prose.random.choice(texts), prose.random.choice([0.01, 0.05, 0.1])) for _ in range(100)]
    sets = shingle(prose.random.sample(texts, len(texts)))
    held_out = np.array(sorted(random.Random(2).sample(range(200), 60)))
    left, right = (side.ravel() for side in np.meshgrid(np.arange(60), np.arange(200), indexing="ij"))
    exact = jaccard(sets.take(held_out[left]), sets.take(right))
    expected = np.flatnonzero((exact >= threshold) & (sets.sizes[right] > 0))
    pairs = cross_pairs(sets.take(held_out), blocks(sets, 32), threshold)
    assert len(expected) > 65
    assert np.array_equal(pairs.left, left[expected])
    assert np.array_equal(pairs.right, right[expected])


def test_few_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 x 2,000 pairs of unrelated texts less than one in twenty."""
    prose = Prose(3)
    held_out, others = (shingle([prose.text() for _ in range(count)]) for count in (200, 2000))
    compared = 0
    exact = leakage.jaccard

    def counted(left: Shingles, right: Shingles) -> NDArray[np.float64]:
        nonlocal compared
        compared += len(left)
        return exact(left, right)

    monkeypatch.setattr(leakage, "jaccard", counted)
    assert len(cross_pairs(held_out, [others]).left) == 0
    assert compared < 200 * 2000 / 20


def test_empty_texts_are_like_nothing() -> None:
    empty, one = shingle(["", " "]), shingle(["one text", ""])
    assert len(cross_pairs(empty, [empty, one]).left) == 0
    assert len(cross_pairs(shingle([]), [one]).left) == 0
    assert len(cross_pairs(one, []).left) == 0
    assert cross_pairs(one, [empty, one]).right.tolist() == [2]


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 80))
def test_slices_cover_everything_and_keep_to_their_size(sizes: list[int], most: int) -> None:
    parts = list(slices(np.array(sizes, dtype=np.int64), most))
    assert [place for first, last in parts for place in range(first, last)] == list(range(len(sizes)))
    assert all(sum(sizes[first:last]) <= most or last == first + 1 for first, last in parts)


@given(SETS, st.integers(1, 10), st.randoms())
def test_pairs_with_the_same_label_do_not_count(texts: list[set[int]], size: int, generator: random.Random) -> None:
    labels = np.array([generator.randint(0, 2) for _ in texts], dtype=np.int8)
    sets = sets_of(texts)
    every = cross_pairs(sets, blocks(sets, size), 0.5)
    some = cross_pairs(sets, blocks(sets, size), 0.5, (labels, labels))
    expected = every.take(labels[every.left] != labels[every.right])
    assert [column.tolist() for column in some] == [column.tolist() for column in expected]
