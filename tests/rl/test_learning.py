"""PPO learns. The clip and the signs are held by the vectors; that all parts work together is held here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ftcli.rl.ppo import PpoSettings, PpoTrainer
from ftcli.rl.rollout import Sampling
from ftcli.rl.sequences import Exchange
from tests.rl.conftest import EOS, PAD, full_roles


def share_of_even(exchanges: Sequence[Exchange]) -> list[float]:
    """Among the tokens that are neither padding nor end of turn."""
    contents = [[token for token in one.response if token > EOS] for one in exchanges]
    return [sum(token % 2 == 0 for token in content) / max(len(content), 1) for content in contents]


def test_a_policy_learns_to_write_even_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 7, (256,), generator=generator).tolist()
    prompts = [torch.randint(2, 32, (length,), generator=generator).tolist() for length in lengths]
    settings = PpoSettings(
        total_rollouts=25,
        rollout_batch_size=64,
        micro_batch_size=32,
        learning_rate=1e-3,
        critic_learning_rate=1e-3,
        lr_scheduler_type="constant",
        kl_coef=0.01,
        missing_eos_penalty=0.0,
        seed=0,
    )
    trainer = PpoTrainer(full_roles(), share_of_even, prompts, settings, Sampling(frozenset({EOS}), PAD, 16))
    scores = []
    while not trainer.is_done:
        scores.append(float(trainer.step()["objective/scores"] or 0.0))
    before, after = sum(scores[:2]) / 2, sum(scores[-5:]) / 5
    assert after >= 0.85
    assert after >= before + 0.3
