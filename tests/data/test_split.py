"""Splitting and sampling: no leakage, right sizes, no dependence on order."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.dedup import drop_duplicates
from ftcli.data.records import Reject
from ftcli.data.split import FEW_GROUPS, _check_disjoint, assign_groups, sample_rows, split_rows

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}


def rows(count: int, per_prompt: int = 1) -> list[dict[str, Any]]:
    made = [
        {
            "messages": [
                {"role": "user", "content": f"question {index // per_prompt}"},
                {"role": "assistant", "content": f"answer {index}"},
            ],
            "meta": {"file": "f", "line": index},
        }
        for index in range(count)
    ]
    return [row for row in drop_duplicates(made) if not isinstance(row, Reject)]


def ids(parts: dict[str, list[dict[str, Any]]]) -> dict[str, set[str]]:
    return {split: {row["id"] for row in part} for split, part in parts.items()}


def questions(part: list[dict[str, Any]]) -> set[str]:
    return {row["messages"][0]["content"] for row in part}


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (20, (18, 1, 1)), (100, (90, 5, 5))]
)
def test_few_rows_fill_the_splits_exactly(count: int, sizes: tuple[int, int, int]) -> None:
    parts = split_rows(rows(count), 0.05, 0.05, seed=1)
    assert tuple(len(part) for part in parts.values()) == sizes


def test_many_rows_come_close_to_the_shares() -> None:
    parts = split_rows(rows(10_000), 0.1, 0.2, seed=1)
    # binomial: three standard deviations of 10,000 draws at 0.1 and 0.2 are 90 and 120
    assert abs(len(parts["validation"]) - 1000) < 90
    assert abs(len(parts["test"]) - 2000) < 120


@pytest.mark.parametrize("count", [60, 4 * FEW_GROUPS])
def test_a_prompt_is_never_in_two_splits(count: int) -> None:
    parts = split_rows(rows(count, per_prompt=3), 0.2, 0.2, seed=3)
    asked = [questions(part) for part in parts.values()]
    assert all(asked)
    assert len(set.union(*asked)) == sum(len(part) for part in asked)
    assert sum(len(part) for part in parts.values()) == count


@pytest.mark.parametrize("count", [50, 2 * FEW_GROUPS])
def test_the_order_of_the_input_decides_nothing(count: int) -> None:
    made = rows(count)
    mixed = random.Random(0).sample(made, count)
    assert ids(split_rows(made, 0.1, 0.1, 5)) == ids(split_rows(mixed, 0.1, 0.1, 5))
    kept = {row["id"] for row in sample_rows(made, 10, 5) if not isinstance(row, Reject)}
    assert kept == {row["id"] for row in sample_rows(mixed, 10, 5) if not isinstance(row, Reject)}


def test_another_seed_splits_otherwise() -> None:
    made = rows(200)
    assert ids(split_rows(made, 0.1, 0.1, 5)) != ids(split_rows(made, 0.1, 0.1, 6))


def test_more_rows_never_move_the_rows_of_a_large_set() -> None:
    before, after = (split_rows(rows(count), 0.1, 0.1, 5) for count in (FEW_GROUPS, 2 * FEW_GROUPS))
    assert all(ids(before)[split] <= ids(after)[split] for split in before)


def test_a_share_of_zero_leaves_the_split_empty() -> None:
    parts = split_rows(rows(30), 0, 0, seed=1)
    assert [len(part) for part in parts.values()] == [30, 0, 0]


@given(
    st.lists(st.integers(min_value=1, max_value=50), min_size=3, max_size=40), st.integers(min_value=0, max_value=99)
)
def test_with_three_groups_no_split_stays_empty(sizes: list[int], seed: int) -> None:
    assigned = assign_groups({f"group {index}": size for index, size in enumerate(sizes)}, SHARES, seed)
    assert set(assigned.values()) == set(SHARES)
    assert len(assigned) == len(sizes)


def test_a_group_larger_than_its_share_goes_to_train() -> None:
    assigned = assign_groups({"huge": 60, "b": 20, "c": 20}, SHARES, seed=1)
    assert assigned["huge"] == "train"
    assert Counter(assigned.values()) == {"train": 1, "validation": 1, "test": 1}


def test_sampling_keeps_n_rows_in_their_order_and_refuses_the_rest() -> None:
    made = rows(50)
    kept = [item for item in sample_rows(made, 20, 1) if not isinstance(item, Reject)]
    refused = [item for item in sample_rows(made, 20, 1) if isinstance(item, Reject)]
    assert len(kept) == 20
    assert [row["meta"]["line"] for row in kept] == sorted(row["meta"]["line"] for row in kept)
    assert {item.reason for item in refused} == {"over_limit"}
    assert len(refused) == 30
    assert kept != made[:20]


def test_a_torn_group_is_noticed() -> None:
    one, other = rows(2, per_prompt=2)
    with pytest.raises(RuntimeError, match="its group in train"):
        _check_disjoint({"train": [one], "test": [other]})
