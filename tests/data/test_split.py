"""Splitting: no leakage, right sizes, no dependence on order."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ftcli.data.split import FEW_GROUPS, Split, draw, draws, hexadecimal, split_groups

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}
TENTHS = {"train": 0.8, "validation": 0.1, "test": 0.1}
NUMBERS = st.integers(0, 2**64 - 1)


def keys_of(count: int) -> NDArray[np.uint64]:
    """Keys as digests are: far apart, and those of fewer rows among those of more."""
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def split(sizes: list[int], shares: dict[str, float] = SHARES, seed: int = 1, strata: Any = None) -> Split:
    """Groups of these sizes, one after the other."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return split_groups(groups, keys_of(len(groups)), shares, seed, strata)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (20, (18, 1, 1)), (100, (90, 5, 5))]
)
def test_few_rows_fill_the_splits_exactly(count: int, sizes: tuple[int, int, int]) -> None:
    assert tuple(split([1] * count).rows.values()) == sizes


def test_many_rows_come_close_to_the_shares() -> None:
    rows = split([1] * 10_000, {"train": 0.7, "validation": 0.1, "test": 0.2}).rows
    # binomial: three standard deviations of 10,000 draws at 0.1 and 0.2 are 90 and 120
    assert abs(rows["validation"] - 1000) < 90
    assert abs(rows["test"] - 2000) < 120


@pytest.mark.parametrize("count", [20, 2 * FEW_GROUPS])
@pytest.mark.parametrize("has_strata", [False, True])
def test_a_group_is_never_in_two_splits(count: int, has_strata: bool) -> None:
    groups = np.random.default_rng(0).integers(0, count, 3 * count)
    strata = np.arange(3 * count) % 4 if has_strata else None
    found = split_groups(groups, keys_of(3 * count), TENTHS, 3, strata)
    assert len(set(zip(groups.tolist(), found.part.tolist(), strict=True))) == len(set(groups.tolist()))
    assert found.rows == {name: int((found.part == part).sum()) for part, name in enumerate(TENTHS)}
    assert found.groups == {name: len(set(groups[found.part == part])) for part, name in enumerate(TENTHS)}
    assert all(found.rows.values())


@pytest.mark.parametrize("count", [50, 2 * FEW_GROUPS])
@pytest.mark.parametrize("has_strata", [False, True])
def test_the_order_of_the_input_decides_nothing(count: int, has_strata: bool) -> None:
    groups = np.random.default_rng(1).integers(0, count, 3 * count)
    order = np.array(random.Random(0).sample(range(3 * count), 3 * count))
    strata = np.arange(3 * count) % 3 if has_strata else None
    one = split_groups(groups, keys_of(3 * count), TENTHS, 5, strata)
    mixed = strata[order] if strata is not None else None
    renamed = (count - groups)[order]  # groups are named by rows, which move
    other = split_groups(renamed, keys_of(3 * count)[order], TENTHS, 5, mixed)
    assert np.array_equal(one.part[order], other.part)


def test_another_seed_splits_otherwise() -> None:
    assert not np.array_equal(split([1] * 200, seed=5).part, split([1] * 200, seed=6).part)


def test_more_rows_never_move_the_rows_of_a_large_set() -> None:
    before, after = split([1] * FEW_GROUPS), split([1] * 2 * FEW_GROUPS)
    assert np.array_equal(before.part, after.part[:FEW_GROUPS])


def test_more_answers_to_a_prompt_do_not_move_it() -> None:
    keys = keys_of(FEW_GROUPS)
    before = split_groups(np.arange(FEW_GROUPS), keys, TENTHS, 1)
    twice = split_groups(np.repeat(np.arange(FEW_GROUPS), 2), np.repeat(keys, 2), TENTHS, 1)
    assert np.array_equal(np.repeat(before.part, 2), twice.part)


@pytest.mark.parametrize("count", [30, 2 * FEW_GROUPS])
@pytest.mark.parametrize("strata", [None, "by row"])
def test_a_share_of_zero_leaves_the_split_empty(count: int, strata: str | None) -> None:
    labels = np.arange(count) % 7 if strata else None
    found = split([1] * count, {"train": 0.9, "validation": 0.0, "test": 0.1}, strata=labels)
    assert found.rows["validation"] == 0
    assert found.rows["test"] > 0
    assert not [warning for warning in found.warnings if "validation" in warning]
    assert split([1] * count, {"train": 1.0, "validation": 0.0, "test": 0.0}).rows["train"] == count


@given(
    st.lists(st.integers(min_value=1, max_value=50), min_size=3, max_size=40), st.integers(min_value=0, max_value=99)
)
def test_with_three_groups_no_split_stays_empty(sizes: list[int], seed: int) -> None:
    assert all(split(sizes, seed=seed).rows.values())


@given(st.lists(st.integers(min_value=1, max_value=9), min_size=40, max_size=80))
def test_few_groups_miss_their_shares_by_less_than_a_group(sizes: list[int]) -> None:
    """Each group goes where most is lacking, so no split ends over its target by more than the group it took last."""
    found = split(sizes, {"train": 0.6, "validation": 0.2, "test": 0.2})
    for name, wanted in found.wanted.items():
        assert abs(found.rows[name] - wanted * sum(sizes)) <= max(sizes)


@pytest.mark.parametrize("others", [40, 2 * FEW_GROUPS])
def test_a_group_too_large_for_another_split_goes_to_train(others: int) -> None:
    for seed in range(30):
        found = split([others, *[1] * others], seed=seed)
        assert found.part[0] == 0
        assert found.rows["test"] > 0
        assert found.largest_group == others


def test_strata_have_equal_shares_in_every_split() -> None:
    """100 rows of one label, 300 of another, 1,600 of a third: each split has its share of each, give or take one."""
    labels = np.repeat(np.array([7, 2**63 + 5, 11], dtype=np.uint64), [100, 300, 1600])
    found = split_groups(np.arange(2000), keys_of(2000), TENTHS, 1, labels)
    for label, count in ((7, 100), (2**63 + 5, 300), (11, 1600)):
        counts = np.bincount(found.part[labels == np.uint64(label)], minlength=3)
        assert np.abs(counts - np.array([0.8, 0.1, 0.1]) * count).max() <= 1


def test_strata_too_small_for_a_share_fill_the_splits_together() -> None:
    found = split([1] * 600, SHARES, strata=np.arange(600) // 3)
    assert list(found.rows.values()) == [540, 30, 30]


def test_a_group_belongs_to_the_stratum_of_most_of_its_rows() -> None:
    """Each group has two rows of one label and one of the other, so the splits have 3 : 3 as the whole has."""
    groups = np.repeat(np.arange(400), 3)
    labels = np.tile([0, 0, 1, 1, 1, 0], 200)
    found = split_groups(groups, keys_of(1200), TENTHS, 1, labels)
    for part in range(3):
        assert abs(labels[found.part == part].mean() - 0.5) < 0.02


def test_no_rows_are_split_into_nothing() -> None:
    found = split([])
    assert list(found.rows.values()) == [0, 0, 0]
    assert list(found.shares.values()) == [0, 0, 0]


def test_what_should_be_known_is_told() -> None:
    assert split([1] * 2000).warnings == []
    told = split([700, *[1] * 300]).warnings
    assert told == [
        "one group of similar prompts has 700 rows, 70.0% of all",
    ]
    told = split([40, 30, 30]).warnings
    assert "train has 40.0% of the rows, 90.0% were wanted: groups are not torn apart" in told
    assert "test has only 30 rows: what is measured on it is uncertain" in told


@given(st.lists(st.text(), min_size=1, max_size=20))
def test_draws_depend_on_seed_purpose_and_key_alone(keys: list[str]) -> None:
    found = draws(1, "order", keys).tolist()
    assert found == [draw(1, "order", key) for key in keys]
    assert all(0 <= number < 1 for number in found)
    assert draws(1, "order", keys[:1])[0] != draws(2, "order", keys[:1])[0] != draws(1, "limit", keys[:1])[0]


def test_a_draw_is_the_first_53_bits_of_a_digest() -> None:
    """By Python's integers: the draws decide published splits, so they must never change."""
    digest = hashlib.blake2b(b"order:42:00ff", digest_size=8).hexdigest()
    assert draw(42, "order", "00ff") == int(digest, 16) // 2**11 / 2**53
    assert draws(42, "order", []).tolist() == []


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5))
def test_keys_are_written_as_python_writes_numbers(keys: list[tuple[int, int]]) -> None:
    array = np.array(keys, dtype=np.uint64).reshape(-1, 2)
    assert list(hexadecimal(array, 24)) == [f"{high << 64 | low:032x}"[:24] for high, low in keys]
    assert list(hexadecimal(array[:, :1], 16)) == [f"{high:016x}" for high, _ in keys]


def test_draws_are_even() -> None:
    """Kolmogorov-Smirnov: D sqrt(n) is over 1.95 in one of 1,000 samples."""
    drawn = np.sort(draws(3, "split", map(str, range(10_000))))
    distance = np.abs(drawn - np.arange(10_000) / 10_000).max()
    assert distance * 100 < 1.95


def test_groups_with_a_bound_row_go_to_train_and_decide_nothing_for_the_others() -> None:
    for count in (200, 3000):  # few groups are dealt out, many are cut by hash
        groups = np.arange(count)
        keys = np.random.default_rng(1).integers(0, 2**63, count).astype(np.uint64)
        shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
        alone = split_groups(groups, keys, shares, seed=3)
        more = np.random.default_rng(2).integers(0, 2**63, count).astype(np.uint64)
        bound = np.arange(2 * count) >= count
        both = split_groups(np.arange(2 * count), np.concatenate([keys, more]), shares, 3, None, bound)
        assert (both.part[count:] == 0).all()
        assert (both.part[:count] == alone.part).all()
        assert both.shares == pytest.approx(alone.shares)
        assert both.bound == count


def test_a_bound_row_takes_its_group_along() -> None:
    groups = np.array([0, 0, 0, 3, 4, 5])
    parts = split_groups(
        groups, np.arange(6, dtype=np.uint64), {"train": 0.0, "validation": 0.5, "test": 0.5}, 1, None, groups * 0 == 1
    )
    assert 0 not in parts.part
    bound = np.array([False, True, False, False, False, False])
    parts = split_groups(
        groups, np.arange(6, dtype=np.uint64), {"train": 0.0, "validation": 0.5, "test": 0.5}, 1, None, bound
    )
    assert parts.part.tolist()[:3] == [0, 0, 0]
    assert 0 not in parts.part[3:]


def test_rows_that_are_all_bound_are_no_share_that_was_missed() -> None:
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    parts = split_groups(np.arange(60), np.arange(60, dtype=np.uint64), shares, 1, None, np.ones(60, bool))
    assert parts.rows == {"train": 60, "validation": 0, "test": 0}
    assert not [warning for warning in parts.warnings if "were wanted" in warning]
