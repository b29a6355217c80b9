"""What a rollout and its updates looked like, in numbers, under the names that TRL's PPO gave them.

Averages weigh every token, or every response, alike, whatever micro-batches and minibatches they were in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ftcli.rl.advantages import masked_mean
from ftcli.rl.kl import k1, k3
from ftcli.rl.losses import explained_variance
from ftcli.rl.rollout import Experience
from ftcli.rl.sequences import Exchange

Metrics = dict[str, float | int | None]


class TokenMeter:
    """Sums over tokens, so that averages weigh every token alike whatever the grouping."""

    def __init__(self) -> None:
        self.tokens = 0
        self._sums: dict[str, float] = {}

    def add(self, mask: Tensor, **values: Tensor) -> None:
        self.tokens += int(mask.sum())
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach()[mask].double().sum())

    def merge(self, other: TokenMeter) -> None:
        self.tokens += other.tokens
        for name, value in other._sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def mean(self, name: str) -> float:
        return self._sums[name] / self.tokens


def describe(experience: Experience, kl_coef: float, widest_variance: float) -> Metrics:
    """Metrics of a rollout before it is learnt from.

    ``widest_variance`` is the largest variance of shaped scores so far: where returns vary by less than a thousandth of it
    (all scores alike), the explained variance means nothing and is None.
    """
    measured, exchanges = experience.measured, experience.exchanges
    mask = measured.mask
    kl = k1(measured.logprobs, measured.ref_logprobs).sum(dim=1)  # [B]
    lengths = mask.sum(dim=1).double()  # [B]
    returns_variance = float(experience.returns[mask].double().var(unbiased=False))
    has_spread = returns_variance > 1e-3 * widest_variance
    ended = sum(one.ended for one in exchanges)
    return {
        "objective/kl": float(kl.mean()),
        "objective/kl_k3": float((k3(measured.logprobs, measured.ref_logprobs) * mask).sum(dim=1).mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(-measured.logprobs.sum(dim=1).mean()),
        "objective/non_score_reward": float(-kl_coef * kl.mean()),
        "objective/scores": float(experience.scores.mean()),
        "objective/scores_std": float(experience.scores.std()),
        "objective/rlhf_reward": float((experience.shaped - kl_coef * kl).mean()),
        "policy/entropy_avg": float(masked_mean(measured.entropy, mask)),
        "val/explained_variance": (
            explained_variance(measured.values, experience.returns, mask) if has_spread else None
        ),
        "val/mean": float(masked_mean(measured.values, mask)),
        "val/return_mean": float(masked_mean(experience.returns, mask)),
        "val/num_eos_tokens": ended,
        "rollout/length_mean": float(lengths.mean()),
        "rollout/length_p95": float(lengths.quantile(0.95)),
        "rollout/eos_rate": ended / len(exchanges),
        "rollout/distinct2": distinct_bigrams(exchanges),
        "rollout/score_length_corr": correlation(experience.scores, lengths),
    }


def distinct_bigrams(exchanges: Sequence[Exchange]) -> float | None:
    """Different pairs of neighbouring response tokens over all such pairs; None where no response has two tokens."""
    pairs = [pair for one in exchanges for pair in zip(one.response, one.response[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else None


def correlation(first: Tensor, second: Tensor) -> float | None:
    """Pearson's correlation of two vectors; None where one of them is constant."""
    if first.min() == first.max() or second.min() == second.max():
        return None
    return float(torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1])
