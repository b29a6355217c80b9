from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftcli.training.batches import derive_micro_batch, row_order, total_steps

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(lengths=LENGTHS, batch=st.integers(1, 9), steps=st.integers(1, 12), seed=st.integers(0, 5))
def test_rows_are_seen_equally_often_in_full_steps_longest_first(
    lengths: list[int], batch: int, steps: int, seed: int
) -> None:
    order = row_order(lengths, batch, steps, seed)
    assert len(order) == steps * batch
    counts = [order.count(row) for row in range(len(lengths))]
    assert max(counts) - min(counts) <= 1
    for first in range(0, len(order), batch):
        step = [lengths[row] for row in order[first : first + batch]]
        assert step == sorted(step, reverse=True)


@given(lengths=LENGTHS, batch=st.integers(1, 9), steps=st.integers(2, 12))
def test_more_steps_go_on_from_fewer(lengths: list[int], batch: int, steps: int) -> None:
    assert row_order(lengths, batch, steps, 7)[: (steps - 1) * batch] == row_order(lengths, batch, steps - 1, 7)


def test_the_seed_decides_the_order() -> None:
    lengths = [5] * 30
    assert row_order(lengths, 5, 6, 1) == row_order(lengths, 5, 6, 1)
    assert row_order(lengths, 5, 6, 1) != row_order(lengths, 5, 6, 2)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "max_steps", "steps"),
    [(24, 8, 1.0, None, 3), (25, 8, 1.0, None, 4), (24, 8, 0.5, None, 2), (24, 8, 3.0, 5, 5), (3, 16, 1.0, None, 1)],
)
def test_steps_cover_the_epochs(rows: int, batch: int, epochs: float, max_steps: int | None, steps: int) -> None:
    assert total_steps(rows, batch, epochs, max_steps) == steps


@pytest.mark.parametrize(
    ("batch", "longest", "micro"), [(16, 64, 16), (16, 256, 4), (12, 256, 4), (16, 5000, 1), (7, 256, 1)]
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_derived_micro_batch_divides_the_step_and_fits_the_budget(
    batch: int, longest: int, micro: int, packed: bool
) -> None:
    lengths = [longest] * (2 * batch)
    assert derive_micro_batch(lengths, batch, torch.device("cpu"), packed=packed) == micro


def test_padding_counts_where_rows_are_not_packed() -> None:
    lengths = [900, 10, 10, 10, 500, 500, 10, 10]  # two steps of four rows
    assert derive_micro_batch(lengths, 4, torch.device("cpu"), packed=True) == 4  # 930 and 1,020 tokens
    assert derive_micro_batch(lengths, 4, torch.device("cpu"), packed=False) == 1  # two rows would be 1,800
    assert derive_micro_batch([*lengths[:4], 500, 500, 20, 10], 4, torch.device("cpu"), packed=True) == 2


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
    batch=st.integers(1, 9),
    steps=st.integers(1, 12),
)
def test_a_mixture_takes_its_shares_and_every_set_in_passes(
    sizes: list[int], weights: list[float], batch: int, steps: int
) -> None:
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    sets = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    order = row_order([1] * sum(sizes), batch, steps, 3, list(zip(sets, weights, strict=False)))
    total = sum(weights[: len(sizes)])
    for rows, weight in zip(sets, weights, strict=False):
        taken = [row for row in order if row in rows]
        assert abs(len(taken) - len(order) * weight / total) < len(sizes)
        counts = [taken.count(row) for row in rows]
        assert max(counts) - min(counts) <= 1


def test_a_mixture_of_three_to_one_is_so_in_every_step_of_four() -> None:
    order = row_order([1] * 50, 4, 20, 3, [(range(40), 3.0), (range(40, 50), 1.0)])
    assert all(sum(row < 40 for row in order[first : first + 4]) == 3 for first in range(0, 80, 4))
    assert sorted(row for row in order if row >= 40) == sorted([*range(40, 50)] * 2)  # 20 rows of the small set
