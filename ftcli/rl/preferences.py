"""Preferences for one prompt as a set of answers and (winner, loser) pairs, their loss, and how a scorer is judged on
them.

All pairs of a prompt stay together: each answer is computed once however many pairs it is in, and the prompt's pairs
share the weight 1, as Ouyang et al. 2022 (arXiv 2203.02155, section 3.5) do against overfitting. A ranking of K
answers is such a set too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftcli.rl.losses import centering_loss, preference_loss
from ftcli.rl.sequences import Exchange

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Comparison:
    """Distinct answers to one prompt and the (winner, loser) pairs among them, as indices into ``exchanges``."""

    exchanges: list[Exchange]
    pairs: list[tuple[int, int]]


@dataclass(frozen=True)
class Pairs:
    """The pairs of several comparisons over their concatenated answers: ``winners``, ``losers``, ``weights``, each
    [pairs].

    The weights of a prompt's pairs sum to 1.
    """

    winners: Tensor
    losers: Tensor
    weights: Tensor


def flatten_pairs(comparisons: Sequence[Comparison], device: torch.device | None = None) -> Pairs:
    """Number the answers of ``comparisons`` through and collect the pairs under those numbers."""
    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    offset = 0
    for one in comparisons:
        winners += [offset + winner for winner, _ in one.pairs]
        losers += [offset + loser for _, loser in one.pairs]
        weights += [1.0 / len(one.pairs)] * len(one.pairs)
        offset += len(one.exchanges)
    return Pairs(
        torch.tensor(winners, device=device), torch.tensor(losers, device=device), torch.tensor(weights, device=device)
    )


def comparison_loss(scores: Tensor, pairs: Pairs, centering: float = 0.0) -> Tensor:
    """Sum over prompts of the mean loss of a prompt's pairs, given ``scores`` of all answers.

    Divide by the number of prompts of the whole batch, not of the micro-batch.
    """
    winners, losers = scores[pairs.winners], scores[pairs.losers]
    loss = preference_loss(winners, losers)
    if centering:
        loss = loss + centering * centering_loss(winners, losers)
    return (loss * pairs.weights.to(loss.dtype)).sum()


def wins(difference: Sequence[float]) -> float:
    """How many of the ``difference`` winner - loser are right: 1 where positive, one half where 0."""
    return float(sum(1.0 if one > 0 else 0.5 if one == 0 else 0.0 for one in difference))


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927, JASA 22); ``successes`` may hold halves, which counts of ties
    bring."""
    share = successes / trials
    square = Z95 * Z95
    centre = share + square / (2 * trials)
    spread = Z95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    return max((centre - spread) / scale, 0.0), min((centre + spread) / scale, 1.0)
