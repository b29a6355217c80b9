"""Two processes started by the real torchrun, each running `ranks_job.py` once; what each left is compared with one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ftcli.rl.ranks import Ranks, ranks_from_environment, single
from tests.rl import ranks_job

ROOT = Path(__file__).parents[2]


def run_two(folder: Path) -> list[dict[str, Any]]:
    """What rank 0 and rank 1 found."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.rl.ranks_job"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, *command, str(folder)], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_ranks_started_by_torchrun(tmp_path: Path) -> None:
    """One test, since starting the processes is nearly all of its time; what it claims is the names of these functions."""
    both = run_two(tmp_path)
    torchruns_variables_make_the_ranks(both)
    gather_gives_every_rank_the_values_of_all_in_order(both)
    summed_gradients_are_those_of_one_process_on_all_rows(both)
    a_rank_without_a_gradient_takes_part(both)
    any_is_true_where_one_rank_says_so(both)
    weights_that_differ_are_an_error_on_every_rank(both)
    broadcast_gives_all_the_weights_of_rank_0_in_any_number_format(both)


def torchruns_variables_make_the_ranks(both: list[dict[str, Any]]) -> None:
    assert [(found["rank"], found["size"]) for found in both] == [(0, 2), (1, 2)]


def gather_gives_every_rank_the_values_of_all_in_order(both: list[dict[str, Any]]) -> None:
    for found in both:
        assert [value["rank"] for value in found["gathered"]] == [0, 1]
        assert [len(value["texts"]) for value in found["gathered"]] == [1, 1001]
        assert torch.equal(found["gathered"][0]["rows"], ranks_job.data()[[0, 2, 4]])
        assert torch.equal(found["gathered"][1]["rows"], ranks_job.data()[[1, 3]])


def summed_gradients_are_those_of_one_process_on_all_rows(both: list[dict[str, Any]]) -> None:
    parts = ranks_job.model()
    ranks_job.loss(parts, list(range(ranks_job.ROWS))).backward()
    for name, gradient in ranks_job.gradients(parts).items():
        for found in both:
            summed = found["gradients"][name]
            assert summed is not None
            torch.testing.assert_close(summed, torch.zeros(summed.shape) if gradient is None else gradient)
        assert torch.equal(both[0]["gradients"][name], both[1]["gradients"][name])


def a_rank_without_a_gradient_takes_part(both: list[dict[str, Any]]) -> None:
    unused = ["unused.weight", "unused.bias"]
    assert both[0]["missing"] == unused
    assert both[1]["missing"] == ["first.weight", "first.bias", *unused]
    assert both[1]["gradients"]["first.weight"].abs().sum() > 0
    assert both[0]["gradients"]["unused.weight"].abs().sum() == 0


def any_is_true_where_one_rank_says_so(both: list[dict[str, Any]]) -> None:
    assert [found["any"] for found in both] == [[False, True, True]] * 2


def weights_that_differ_are_an_error_on_every_rank(both: list[dict[str, Any]]) -> None:
    text = "the trained weights of ranks 0 and 1 have come apart: "
    assert [found["different"] for found in both] == [
        [f"{text}1 of 2 tensors differ", f"{text}2 of 3 tensors differ"],
    ] * 2


def broadcast_gives_all_the_weights_of_rank_0_in_any_number_format(both: list[dict[str, Any]]) -> None:
    for found in both:
        matrix, number, half = found["weights"]
        assert torch.equal(matrix, torch.zeros(2, 2))
        assert matrix.requires_grad
        assert number.item() == 0
        assert torch.equal(half, torch.zeros(3).bfloat16())


def test_alone_every_method_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with ranks_from_environment(torch.device("cpu")) as ranks:
        assert ranks == single() == Ranks(0, 1)
        value = [1]
        assert ranks.gather(value)[0] is value
        assert (ranks.any(True), ranks.any(False)) == (True, False)
        parts = ranks_job.model()
        ranks.sum_gradients(list(parts.parameters()))
        assert all(parameter.grad is None for parameter in parts.parameters())
        weight = torch.ones(2)
        ranks.broadcast([weight])
        ranks.assert_same([weight])
        assert torch.equal(weight, torch.ones(2))
