"""What each rank of `test_ppo_ranks.py` does: ``torchrun -m tests.rl.ppo_job FOLDER`` leaves ``FOLDER/<rank>.pt``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ftcli.rl.ppo import PpoSettings, PpoTrainer
from ftcli.rl.ranks import Ranks, ranks_from_environment
from ftcli.rl.roles import lora_roles
from ftcli.rl.rollout import Sampling
from ftcli.rl.sequences import Exchange, Prompt
from tests.rl.conftest import EOS, PAD, random_exchanges, scored, tiny_adapter


def even(exchanges: Sequence[Exchange]) -> list[float]:
    return [sum(token % 2 == 0 for token in one.response) / len(one.response) for one in exchanges]


def work(ranks: Ranks, micro_batch_size: int) -> dict[str, Any]:
    """Two rollouts of PPO, and what came of them."""
    trainer = PpoTrainer(
        lora_roles(tiny_adapter(), is_fresh=False, value_init="zero"),
        scored(even),
        [Prompt(one.prompt) for one in random_exchanges(20, seed=3)],
        PpoSettings(
            total_rollouts=2,
            rollout_batch_size=14,  # the last micro-batches are smaller, and one rank has one more
            micro_batch_size=micro_batch_size,
            learning_rate=1e-3,
            critic_learning_rate=1e-3,
            kl_target=1.0,
            kl_horizon=50,
            lr_scheduler_type="constant",
        ),
        Sampling(frozenset({EOS}), PAD, response_length=9),
        ranks=ranks,
    )
    first = trainer.step()
    assert trainer.last is not None
    advantages, responses = trainer.last.advantages, [one.response for one in trainer.last.exchanges]
    experience = trainer.experience(trainer.last.exchanges, trainer.last.scores)
    trainer.accumulate(experience, list(range(14)))
    weights = [*trainer.roles.policy_parameters(), *trainer.roles.value_parameters(), *trainer.roles.head_parameters()]
    gradients = [weight.grad.clone() for weight in weights if weight.grad is not None]
    trainer.optimizer.zero_grad(set_to_none=True)
    second = trainer.step()
    ranks.assert_same(weights)
    clocks = ("perf/", "eps")
    return {
        "metrics": [
            {name: value for name, value in one.items() if not name.startswith(clocks)} for one in (first, second)
        ],
        "advantages": advantages,
        "responses": responses,
        "gradients": gradients,
        "kl_coef": trainer.kl.value,
        "weights": [weight.detach() for weight in weights],
    }


if __name__ == "__main__":
    with ranks_from_environment(torch.device("cpu")) as found:
        torch.save(work(found, micro_batch_size=4), Path(sys.argv[1]) / f"{found.rank}.pt")
