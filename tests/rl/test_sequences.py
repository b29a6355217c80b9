from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftcli.rl.sequences import Exchange, collate, micro_batches

ROWS = [Exchange([5, 6, 7], [8, 9]), Exchange([5], [9, 4, 9])]


def test_layout_of_two_rows() -> None:
    batch = collate(ROWS, pad_id=0)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [5, 9, 4, 9, 0]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.last.tolist() == [4, 3]
    assert batch.targets.tolist() == [8, 9, 9, 4, 9]
    rows, columns = batch.predictors
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]


def test_a_padding_id_equal_to_the_end_of_turn_changes_nothing_but_the_padding() -> None:
    other, same = collate(ROWS, pad_id=0), collate(ROWS, pad_id=9)
    for name in ("mask", "last", "targets"):
        assert torch.equal(getattr(other, name), getattr(same, name))


def test_an_ended_response_is_masked_and_scored_at_its_end_of_turn_token() -> None:
    batch = collate([Exchange([5, 6], [7, 8, 1]), Exchange([5, 6], [7, 8, 3, 4], ended=False)], pad_id=1)
    assert batch.mask.sum(1).tolist() == [3, 4]
    assert batch.ids[0, batch.last[0]] == 1
    assert batch.ids[1, batch.last[1]] == 4


def test_spread_puts_values_where_the_mask_is() -> None:
    found = collate(ROWS, pad_id=0).spread(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.tolist() == [[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("row", [Exchange([], [4]), Exchange([4], [])])
def test_an_empty_prompt_or_response_is_refused(row: Exchange) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        collate([row], pad_id=0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 9))
def test_micro_batches_part_the_rows_and_grow_in_length(lengths: list[int], size: int) -> None:
    groups = micro_batches(lengths, range(len(lengths)), size)
    flat = [index for group in groups for index in group]
    assert sorted(flat) == list(range(len(lengths)))
    assert all(len(group) <= size for group in groups)
    assert [lengths[index] for index in flat] == sorted(lengths)
