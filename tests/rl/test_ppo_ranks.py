"""PPO in two processes, started by the real torchrun, computes what one process computes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from ftcli.rl.ranks import single
from tests.rl.ppo_job import work


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.rl.ppo_job"]
    subprocess.run([sys.executable, *command, str(folder)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return work(single(), micro_batch_size=8)


def test_both_ranks_know_the_whole_rollout_and_end_with_the_same_weights(two: list[dict[str, Any]]) -> None:
    first, second = two
    assert first["responses"] == second["responses"]
    assert len(first["responses"]) == 14
    assert torch.equal(first["advantages"], second["advantages"])
    assert first["metrics"] == second["metrics"]
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))


def test_advantages_gradients_kl_and_weights_are_those_of_one_process(
    one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    assert two[0]["responses"] == one["responses"]
    torch.testing.assert_close(two[0]["advantages"], one["advantages"], rtol=1e-5, atol=1e-6)
    for found, expected in zip(two[0]["gradients"], one["gradients"], strict=True):
        assert float((found - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-9
    assert two[0]["kl_coef"] == pytest.approx(one["kl_coef"], rel=1e-6)
    assert two[0]["kl_coef"] != 0.05
    for found, expected in zip(two[0]["weights"], one["weights"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    for found, expected in zip(two[0]["metrics"], one["metrics"], strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == (value if value is None else pytest.approx(value, rel=2e-3, abs=1e-5)), name
