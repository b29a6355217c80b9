from __future__ import annotations

import pytest
import torch

from ftcli.core.memory import in_batches, is_out_of_memory

SIZES = [3, 9, 1, 7, 5, 2, 8]
LONGEST_FIRST = [1, 6, 3, 4, 0, 5, 2]


def test_rows_come_longest_first_and_results_in_their_order() -> None:
    batches: list[list[int]] = []
    told: list[tuple[list[int], list[int]]] = []

    def compute(rows: list[int]) -> list[int]:
        batches.append(rows)
        return [10 * row for row in rows]

    found = in_batches(SIZES, 3, compute, on_rows=lambda rows, results: told.append((rows, list(results))))
    assert found == [0, 10, 20, 30, 40, 50, 60]
    assert batches == [LONGEST_FIRST[:3], LONGEST_FIRST[3:6], LONGEST_FIRST[6:]]
    assert told == [(rows, [10 * row for row in rows]) for rows in batches]
    assert in_batches([], 3, compute) == []


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6])
def test_batches_are_halved_until_they_fit(most: int) -> None:
    tried: list[int] = []
    halved: list[int] = []

    def compute(rows: list[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > most:
            raise MemoryError
        return rows

    assert in_batches(SIZES, 8, compute, on_halved=halved.append) == list(range(7))
    assert halved == {1: [3, 1], 2: [3, 1], 3: [3], 4: [3], 5: [3], 6: [3]}[most]
    fit = halved[-1]
    assert tried[len(halved) :] == [fit] * (7 // fit) + [7 % fit] * (7 % fit > 0)


def test_a_row_that_does_not_fit_alone_is_an_error() -> None:
    def compute(rows: list[int]) -> list[int]:
        raise MemoryError("one row")

    with pytest.raises(MemoryError, match="one row"):
        in_batches(SIZES, 4, compute)


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []

    def compute(rows: list[int]) -> list[int]:
        tried.append(len(rows))
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_batches(SIZES, 4, compute)
    assert tried == [4]


def test_torch_without_memory_is_recognised() -> None:
    """A real failure of torch's allocator on the CPU, then what it raises for GPUs and from C++."""
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
