"""Leaders and groups, against brute force over all pairs and on planted copies."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ftcli.data import near
from ftcli.data.dedup import normalise, number_key, rank_by
from ftcli.data.minhash import NO_KEY, band_keys
from ftcli.data.near import Clusters, Columns, assign_leaders, group, merge
from ftcli.data.shingles import boilerplate_of, drop, shingle
from ftcli.data.similar import Pairs
from tests.data.planted import PREFIX, Prose

GROUPS = 28, 5
"""Bands and rows for pairs from .7 on."""
BASE = "the quick brown fox jumps over the lazy dog and runs far away"


def columns(texts: Sequence[str], bands: int = 0, rows: int = 0, answers: Sequence[str] | None = None) -> Columns:
    """``bands`` of 0 puts all texts in one bucket, so that every pair is a candidate."""

    def view(said: Sequence[str]) -> near.View:
        return lambda places: shingle([said[place] for place in places])

    sets = shingle(texts)
    keys = band_keys(sets, bands, rows) if bands else np.where(sets.sizes > 0, np.uint32(7), NO_KEY)[:, None]
    digests = [xxhash.xxh3_64_intdigest(normalise(text).encode()) for text in texts]
    rank = rank_by(np.array(digests, dtype=np.uint64), np.arange(len(texts)))
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return Columns(keys, rank, lengths, [view(texts), *([view(answers)] if answers else [])])


def numbers(texts: Sequence[str]) -> NDArray[np.uint64]:
    return np.array([number_key(text) for text in texts], dtype=np.uint64)


def unguarded(texts: Sequence[str]) -> NDArray[np.uint64]:
    return np.zeros(len(texts), dtype=np.uint64)


@cache
def windows(text: str) -> frozenset[str]:
    normal = normalise(text)
    padded = normal.ljust(5, "\0") if normal else ""
    return frozenset(padded[start : start + 5] for start in range(len(padded) - 4))


def similarity(one: str, other: str) -> float:
    left, right = windows(one), windows(other)
    return len(left & right) / len(left | right) if left and right else 0.0


def removed(clusters: Clusters) -> list[int]:
    return np.flatnonzero(clusters.leader >= 0).tolist()


def variants(seed: int, count: int) -> list[str]:
    """Texts around a few others, at all distances."""
    source = random.Random(seed)
    bases = [" ".join(source.choices(BASE.split(), k=12)) for _ in range(3)]
    texts = []
    for _ in range(count):
        letters = list(source.choice(bases))
        for _ in range(source.randint(0, 4)):
            letters[source.randrange(len(letters))] = source.choice(string.ascii_lowercase)
        texts.append("".join(letters))
    return texts


def leaders_by_hand(texts: Sequence[str], rank: NDArray[np.int64], remove: float) -> list[int]:
    """Rows that go, one row after the other in the order of rank."""
    kept: list[int] = []
    gone = []
    for row in np.argsort(rank).tolist():
        if any(similarity(texts[row], texts[other]) >= remove for other in kept):
            gone.append(row)
        else:
            kept.append(row)
    return sorted(gone)


@given(seed=st.integers(0, 10_000), count=st.integers(0, 60), remove=st.sampled_from([0.6, 0.8, 0.9]))
def test_leaders_are_those_of_one_pass_over_all_pairs(seed: int, count: int, remove: float) -> None:
    texts = variants(seed, count)
    table = columns(texts)
    clusters = assign_leaders(table, unguarded(texts), remove=remove, flag=0.5)
    assert removed(clusters) == leaders_by_hand(texts, table.rank, remove)
    for row in removed(clusters):
        leader = int(clusters.leader[row])
        assert clusters.leader[leader] == -1
        assert table.rank[leader] < table.rank[row]
        assert clusters.similarity[row] == pytest.approx(similarity(texts[row], texts[leader]))
        assert clusters.similarity[row] >= remove
    kept = [row for row in range(count) if clusters.leader[row] < 0]
    expected = {
        frozenset((one, other))
        for one in kept
        for other in kept
        if one < other and similarity(texts[one], texts[other]) >= 0.5
    }
    flagged = list(zip(clusters.flagged.left.tolist(), clusters.flagged.right.tolist(), strict=True))
    assert len(flagged) == len(expected)
    assert {frozenset(pair) for pair in flagged} == expected


@given(seed=st.integers(0, 10_000), count=st.integers(0, 60))
def test_groups_are_the_components_of_all_similar_and_equal_pairs(seed: int, count: int) -> None:
    texts = variants(seed, count)
    table = columns(texts)
    owners = np.array([index % 17 if index % 17 < 3 else 100 + index for index in range(count)], dtype=np.uint64)
    found = group(table, threshold=0.7, equal=[owners])
    label = list(range(count))
    for one in range(count):
        for other in range(one):
            if similarity(texts[one], texts[other]) >= 0.7 or owners[one] == owners[other]:
                label = [label[one] if name == label[other] else name for name in label]
    assert len(set(zip(found.tolist(), label, strict=True))) == len(set(label)) == len(set(found.tolist()))
    for row, name in enumerate(found.tolist()):
        assert table.rank[name] == min(table.rank[other] for other in range(count) if label[other] == label[row])


@pytest.mark.parametrize("bands", [0, 28])
def test_the_order_of_the_input_decides_nothing(bands: int) -> None:
    texts = sorted({*variants(1, 150), *variants(2, 150)})
    order = random.Random(3).sample(range(len(texts)), len(texts))
    mixed = [texts[place] for place in order]
    one, other = (assign_leaders(columns(said, bands, 5), unguarded(said), 0.8, 0.7) for said in (texts, mixed))
    assert removed(one)
    assert _leaders_of(one, texts) == _leaders_of(other, mixed)
    assert _texts_of(one.flagged, texts) == _texts_of(other.flagged, mixed)
    groups = [group(columns(said, bands, 5)) for said in (texts, mixed)]
    assert [mixed[name] for name in groups[1]] == [texts[groups[0][place]] for place in order]


def _leaders_of(clusters: Clusters, texts: Sequence[str]) -> dict[str, str]:
    return {texts[row]: texts[int(clusters.leader[row])] for row in removed(clusters)}


def _texts_of(pairs: Pairs, texts: Sequence[str]) -> list[tuple[str, str, float]]:
    left, right = ([texts[row] for row in side] for side in (pairs.left, pairs.right))
    return list(zip(left, right, pairs.jaccard.tolist(), strict=True))


def test_a_chain_removes_only_what_is_like_the_row_that_stays() -> None:
    """Twelve texts, each two letters from the next: like their neighbours, unlike those far away."""
    chain = [BASE]
    for step in range(11):
        letters = list(chain[-1])
        letters[5 * step : 5 * step + 2] = "##"
        chain.append("".join(letters))
    clusters = assign_leaders(columns(chain), unguarded(chain), remove=0.8, flag=0.8)
    assert min(similarity(one, other) for one, other in itertools.pairwise(chain)) > 0.8
    assert similarity(chain[0], chain[-1]) < 0.2
    assert all(similarity(chain[row], chain[int(clusters.leader[row])]) >= 0.8 for row in removed(clusters))
    assert clusters.largest <= 4
    assert len(set(group(columns(chain), threshold=0.8).tolist())) == 1


def test_other_numbers_are_no_duplicates() -> None:
    texts = ["There are 12 apples and 30 pears in the old basket", "There are 12 apples and 31 pears in the old basket"]
    assert similarity(*texts) > 0.7
    assert not removed(assign_leaders(columns(texts), numbers(texts), remove=0.7, flag=0.7))
    assert len(removed(assign_leaders(columns(texts), unguarded(texts), remove=0.7, flag=0.7))) == 1


def test_rows_must_be_alike_in_every_view() -> None:
    answers = ["positive", "negative", "positive"]
    texts = [f"{BASE}: {BASE[::-1]} {answer}" for answer in answers]
    texts[2] += "!"
    assert similarity(texts[0], texts[1]) > 0.8
    assert len(removed(assign_leaders(columns(texts), unguarded(texts), 0.8, 0.7))) == 2
    clusters = assign_leaders(columns(texts, answers=answers), unguarded(texts), 0.8, 0.7)
    assert {*removed(clusters), *clusters.leader[removed(clusters)].tolist()} == {0, 2}
    assert len(clusters.flagged.left) == 0


def test_short_texts_are_compared_too() -> None:
    texts = ["What is AI?", "what is ai", "What is it?", "Hi", "hi", "Yo", "", ""]
    clusters = assign_leaders(columns(texts, 10, 6), unguarded(texts), remove=0.8, flag=0.8)
    pairs = {frozenset((row, int(clusters.leader[row]))) for row in removed(clusters)}
    assert pairs == {frozenset((0, 1)), frozenset((3, 4))}
    assert len(set(group(columns(texts, *GROUPS)).tolist())) == 6


def test_of_identical_rows_one_is_kept() -> None:
    texts = ["What is AI?"] * 500
    clusters = assign_leaders(columns(texts, 10, 6), unguarded(texts))
    assert len(removed(clusters)) == 499
    assert clusters.largest == 500
    assert len(set(group(columns(texts, *GROUPS)).tolist())) == 1


@pytest.mark.parametrize("texts", [[], [""], ["one text"], ["", ""]])
def test_nothing_is_like_nothing(texts: list[str]) -> None:
    clusters = assign_leaders(columns(texts, 10, 6), unguarded(texts))
    assert not removed(clusters)
    assert clusters.largest == 0
    assert group(columns(texts, *GROUPS)).tolist() == list(range(len(texts)))


def test_a_large_bucket_of_unlike_rows_costs_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """4,000 rows are compared with at most 16 of them: 65,536 / 4,000. Its near-duplicates of those 16 are found still."""
    prose = Prose(1)
    texts = [prose.text(12) for _ in range(4000)]
    compared = 0
    exact = near.jaccard

    def counted(left: near.Shingles, right: near.Shingles) -> NDArray[np.float64]:
        nonlocal compared
        compared += len(left)
        return exact(left, right)

    monkeypatch.setattr(near, "jaccard", counted)
    table = columns(texts)
    assert not removed(assign_leaders(table, unguarded(texts)))
    assert compared <= 16 * 4000
    compared = 0
    group(table)
    assert compared <= 16 * 4000


def test_many_copies_of_many_texts_in_one_bucket_are_all_found() -> None:
    """A header that all rows share puts them in one bucket; heads that find copies do not count against it."""
    prose = Prose(6)
    texts = [f"{text} {end}" for text in (prose.text(30) for _ in range(60)) for end in string.ascii_lowercase[:25]]
    clusters = assign_leaders(columns(texts), unguarded(texts), remove=0.9)
    assert len(removed(clusters)) == 60 * 24
    assert clusters.largest == 25


def test_a_header_that_many_prompts_share_makes_them_no_group() -> None:
    prose = Prose(7)
    header = prose.text(60)
    texts = [f"{header} {prose.text(8)}" for _ in range(200)]
    sets = shingle(texts)
    left = drop(sets, boilerplate_of(sets))
    table = columns(texts)
    apart = replace(table, keys=band_keys(left, *GROUPS), views=[left.take])
    assert len(set(group(table).tolist())) == 1
    assert len(set(group(apart).tolist())) == 200


def test_pairs_found_elsewhere_merge_their_groups() -> None:
    rank = np.array([4, 0, 3, 1, 2])
    groups = np.array([3, 1, 2, 3, 4])
    pairs = Pairs(np.array([0, 2]), np.array([2, 3]), np.array([0.8, 0.7]))
    assert merge(groups, rank, pairs).tolist() == [3, 1, 3, 3, 4]
    assert merge(groups, rank, Pairs.joined([])).tolist() == groups.tolist()


COUNT = 400


@pytest.fixture(scope="module")
def planted() -> tuple[list[str], dict[str, dict[int, int]]]:
    """Texts, and for each kind of copy the row of each original and its copy."""
    prose = Prose(11)
    texts = [prose.problem() if index % 2 else prose.text() for index in range(3 * COUNT)]
    copies = {
        "format": prose.reformatted,
        "edit 5%": lambda text: prose.edited(text, 0.05),
        "edit 10%": lambda text: prose.edited(text, 0.1),
        "edit 20%": lambda text: prose.edited(text, 0.2),
        "truncation": prose.truncated,
        "prefix": lambda text: PREFIX + text,
        "number": prose.renumbered,
    }
    pairs: dict[str, dict[int, int]] = {}
    originals = iter(random.Random(0).sample(range(1, 3 * COUNT, 2), COUNT))
    for name, copy in copies.items():
        pairs[name] = {}
        for _ in range(COUNT // len(copies)):
            original = next(originals)
            pairs[name][original] = len(texts)
            texts.append(copy(texts[original]))
    return texts, pairs


def test_planted_copies_fall_into_the_group_of_their_original(
    planted: tuple[list[str], dict[str, dict[int, int]]],
) -> None:
    texts, pairs = planted
    found = group(columns(texts, *GROUPS))
    recall = {
        name: np.mean([found[one] == found[other] for one, other in kind.items()]) for name, kind in pairs.items()
    }
    assert recall["format"] == recall["number"] == 1
    assert recall["edit 5%"] >= 0.95
    assert recall["edit 10%"] >= 0.75
    assert recall["truncation"] >= 0.9
    assert recall["prefix"] >= 0.9
    alike = [
        (one, other)
        for kind in pairs.values()
        for one, other in kind.items()
        if similarity(texts[one], texts[other]) >= 0.7
    ]
    assert len(alike) > COUNT / 2
    assert np.mean([found[one] == found[other] for one, other in alike]) >= 0.99


def test_planted_copies_are_removed_but_never_one_with_another_number(
    planted: tuple[list[str], dict[str, dict[int, int]]],
) -> None:
    texts, pairs = planted
    clusters = assign_leaders(columns(texts, 10, 6), numbers(texts))
    gone = set(removed(clusters))
    recall = {
        name: np.mean([one in gone or other in gone for one, other in kind.items()]) for name, kind in pairs.items()
    }
    assert recall["format"] == 1
    assert recall["number"] == 0
    assert len(gone) <= sum(len(kind) for kind in pairs.values())
    alike = [
        (one, other)
        for one, other in (pair for kind in pairs.values() for pair in kind.items())
        if similarity(texts[one], texts[other]) >= 0.9 and number_key(texts[one]) == number_key(texts[other])
    ]
    assert len(alike) > COUNT / 7
    assert all(one in gone or other in gone for one, other in alike)
