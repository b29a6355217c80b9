"""What to do when memory runs out in the middle of many rows: go on with batches of half the size."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

MEMORY_WORDS = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How libraries say it; torch's own class of error, OutOfMemoryError, says "out of memory" too."""


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(word in f"{type(error).__name__}: {error}" for word in MEMORY_WORDS)


def in_batches(
    sizes: Sequence[int],
    batch_size: int,
    compute: Callable[[list[int]], Sequence[T]],
    *,
    on_rows: Callable[[list[int], Sequence[T]], None] = lambda rows, results: None,
    on_halved: Callable[[int], None] = lambda size: None,
) -> list[T]:
    """The result of each row, in order; ``compute`` is given the indices of at most ``batch_size`` rows and gives their results.

    Rows of large ``sizes`` come first: memory runs out at once or not at all. Where it does, the batch and all after it have half
    as many rows, which ``on_halved`` hears of; when one row alone is too much, the error is raised. ``on_rows`` is called after
    each batch with its rows and their results.
    """
    order = sorted(range(len(sizes)), key=lambda row: -sizes[row])
    results: dict[int, T] = {}
    while len(results) < len(order):
        rows = order[len(results) : len(results) + batch_size]
        found = _computed(compute, rows)
        if found is None:
            _free_memory()  # only now: until the error was gone, it held on to the tensors of its frames
            batch_size = len(rows) // 2
            on_halved(batch_size)
            continue
        results.update(zip(rows, found, strict=True))
        on_rows(rows, found)
    return [results[row] for row in range(len(sizes))]


def _computed(compute: Callable[[list[int]], Sequence[T]], rows: list[int]) -> Sequence[T] | None:
    """The results of ``rows``, or None when memory ran out and fewer rows can be tried."""
    try:
        return compute(rows)
    except Exception as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
        return None


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
