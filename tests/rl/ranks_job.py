"""What each rank of `test_ranks.py` does: ``torchrun ranks_job.py FOLDER`` leaves ``FOLDER/<rank>.pt``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftcli.core.errors import StageFailed
from ftcli.rl.ranks import Ranks, ranks_from_environment

ROWS = 5


def model() -> nn.ModuleDict:
    """Two layers that every row goes through, one that only the first row does, and one that none does."""
    torch.manual_seed(0)
    parts = {name: nn.Linear(3, 3) for name in ("low", "high", "first", "unused")}
    parts["high"].to(torch.float32)
    parts["low"].to(torch.float64)
    return nn.ModuleDict(parts)


def data() -> Tensor:
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss(parts: nn.ModuleDict, rows: list[int]) -> Tensor:
    """The sum over ``rows`` of the data divided by the number of all rows."""
    total = torch.zeros(())
    for row in rows:
        out = parts["high"](torch.tanh(parts["low"](data()[row])).float())
        if row == 0:
            out = out + parts["first"](out)
        total = total + out.square().sum()
    return total / ROWS


def gradients(parts: nn.ModuleDict) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in parts.named_parameters()}


def work(ranks: Ranks) -> dict[str, Any]:
    parts = model()
    share = list(range(ROWS))[ranks.rank :: ranks.size]
    loss(parts, share).backward()
    missing = [name for name, gradient in gradients(parts).items() if gradient is None]
    ranks.sum_gradients(list(parts.parameters()))
    weights = [torch.full((2, 2), float(ranks.rank)), torch.tensor(ranks.rank), torch.ones(3).bfloat16() * ranks.rank]
    weights[0].requires_grad_()
    told = []
    for kept in ([weights[0]], weights[1:]):
        try:
            ranks.assert_same([torch.zeros(1), *kept])
        except StageFailed as error:
            told.append(error.message)
    ranks.broadcast(weights)
    ranks.assert_same(weights)
    return {
        "rank": ranks.rank,
        "size": ranks.size,
        "missing": missing,
        "gradients": gradients(parts),
        "gathered": ranks.gather({"rank": ranks.rank, "rows": data()[share], "texts": ["ü"] * (1 + 1000 * ranks.rank)}),
        "any": [ranks.any(flag) for flag in (False, ranks.rank == 1, True)],
        "different": told,
        "weights": weights,
    }


if __name__ == "__main__":
    with ranks_from_environment(torch.device("cpu")) as found:
        result = work(found)
    torch.save(result, Path(sys.argv[1]) / f"{result['rank']}.pt")
