"""From one score per response to one reward per token: a fixed normalisation, the penalty for not ending, the KL, the
score's place.

The score stands on the last response token. Statistics for the normalisation are measured once and stay: scaling each
batch by its own would move the target from rollout to rollout. Rewards: Ziegler et al. 2019 (arXiv 1909.08593), eq.
2; the penalty for missing end-of-turn tokens follows Huang et al. 2024 (arXiv 2403.17031), but is subtracted instead
of replacing the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftcli.rl.sequences import Exchange

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class Scores:
    """Raw scores of exchanges, in their order: ``total`` is what counts, ``parts`` what each source said (None: nothing)."""

    total: list[float]
    parts: dict[str, list[float | None]]

    @property
    def unscored(self) -> list[bool]:
        """For each exchange, whether no source had anything to say."""
        return [all(part is None for part in row) for row in zip(*self.parts.values(), strict=True)]

    @property
    def known(self) -> list[float]:
        """The totals of those exchanges of which some source had something to say."""
        return [total for total, silent in zip(self.total, self.unscored, strict=True) if not silent]


Score = Callable[[Sequence[Exchange]], Scores]
"""Who judges exchanges: a learned reward model, Python functions, or a weighted sum of them."""


@dataclass(frozen=True)
class ScoreScale:
    """Turns raw scores into ``(score - mean) / std``."""

    mean: float = 0.0
    std: float = 1.0


def score_summary(scores: Sequence[float]) -> dict[str, float]:
    """Mean, unbiased standard deviation (0 for one score) and percentiles ``p01`` ... ``p99`` (linear
    interpolation)."""
    values = torch.tensor(scores, dtype=torch.float64)
    quantiles = torch.quantile(values, torch.tensor(PERCENTILES, dtype=torch.float64) / 100)
    spread = float(values.std()) if len(scores) > 1 else 0.0
    named = {f"p{percent:02d}": float(value) for percent, value in zip(PERCENTILES, quantiles, strict=True)}
    return {"mean": float(values.mean()), "std": spread, **named}


def shape_scores(
    scores: Tensor, ended: Tensor, scale: ScoreScale, clip: float | None, missing_eos_penalty: float
) -> Tensor:
    """Scores [B] normalised, clipped to +-``clip``, less the penalty where ``ended`` [B] is False."""
    shaped = (scores - scale.mean) / scale.std
    if clip is not None:
        shaped = shaped.clamp(-clip, clip)
    return shaped - missing_eos_penalty * (~ended).to(shaped.dtype)


def token_rewards(kl: Tensor, mask: Tensor, scores: Tensor, kl_coef: float) -> Tensor:
    """Rewards [B, R]: ``-kl_coef * kl`` at every response token, plus ``scores`` [B] at the last one; 0 where
    ``mask`` is False.

    ``kl`` [B, R] is the per-token estimate; use `ftcli.rl.kl.k1`. ``kl_coef`` is 0 where the KL is part of the loss.
    """
    valid = mask.bool()
    rewards = torch.where(valid, -kl_coef * kl, torch.zeros_like(kl))
    last = valid.sum(dim=1) - 1  # [B]
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))
