"""Which rows an optimizer step sees, decided before training starts: a pure function of the seed.

The order is one long list of row indices, ``global_batch_size`` a step, so neither the micro-batch size nor a resume
can change it. Every step is full: a step at the end of a pass goes on into the next pass. Inside a step, rows are
sorted by length before they are cut into micro-batches, which saves padding and changes no gradient, since the loss is
a mean over the whole step's labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

CPU_TOKENS = 1024
"""Tokens in a micro-batch on a CPU: more of them train no faster and take more memory."""
GPU_TOKENS = 16384


def total_steps(rows: int, global_batch_size: int, num_train_epochs: float, max_steps: int | None) -> int:
    """Optimizer steps: ``max_steps`` if given, else enough to see every row ``num_train_epochs`` times."""
    return max_steps or math.ceil(num_train_epochs * rows / global_batch_size)


def row_order(
    lengths: Sequence[int],
    global_batch_size: int,
    steps: int,
    seed: int,
    mixture: Sequence[tuple[Sequence[int], float]] = (),
) -> list[int]:
    """Indices of rows for all steps: shuffled passes over the rows, longest first within a step.

    ``mixture`` gives sets of rows and their weights. Then every stretch of the order has its share of each set as
    nearly as whole rows allow, and each set has passes of its own, so that a small one comes round more often.
    """
    wanted = steps * global_batch_size
    order = _mixed(mixture, wanted, seed) if mixture else _passes(range(len(lengths)), wanted, seed)
    return [
        index
        for first in range(0, wanted, global_batch_size)
        for index in sorted(order[first : first + global_batch_size], key=lambda row: -lengths[row])
    ]


def _passes(rows: Sequence[int], wanted: int, seed: int) -> list[int]:
    """``rows`` shuffled, as often as it takes to have ``wanted`` of them."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < wanted:
        order.extend(rows[place] for place in torch.randperm(len(rows), generator=generator).tolist())
    return order


def _mixed(mixture: Sequence[tuple[Sequence[int], float]], wanted: int, seed: int) -> list[int]:
    total = sum(weight for _, weight in mixture)
    shares = [weight / total for _, weight in mixture]
    taken = [0] * len(mixture)
    turns = []
    for count in range(1, wanted + 1):  # the set that is furthest behind its share is next
        turn = max(range(len(mixture)), key=lambda one: count * shares[one] - taken[one])
        taken[turn] += 1
        turns.append(turn)
    streams = [iter(_passes(rows, count, seed)) for (rows, _), count in zip(mixture, taken, strict=True)]
    return [next(streams[turn]) for turn in turns]


def derive_micro_batch(lengths: Sequence[int], global_batch_size: int, device: torch.device, *, packed: bool) -> int:
    """The largest divisor of ``global_batch_size`` with which no micro-batch exceeds the device's token budget.

    ``lengths`` are those of the rows in their order (`row_order`); without packing, padding counts too.
    """
    budget = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    sizes = [size for size in range(2, global_batch_size + 1) if global_batch_size % size == 0]
    return max((size for size in sizes if largest_micro_batch(lengths, size, packed=packed) <= budget), default=1)


def largest_micro_batch(lengths: Sequence[int], size: int, *, packed: bool) -> int:
    """Tokens of the largest micro-batch of ``size`` rows, with ``lengths`` in their order; without packing, padding counts."""
    groups = [lengths[first : first + size] for first in range(0, len(lengths), size)]
    return max(sum(group) if packed else len(group) * max(group) for group in groups)
