"""Preferences for one prompt as a set of answers, (winner, loser) pairs and ties, their loss, and how a scorer is judged
on them.

All pairs of a prompt stay together: each answer is computed once however many pairs it is in, and the prompt's pairs
share the weight 1, as Ouyang et al. 2022 (arXiv 2203.02155, section 3.5) do against overfitting. A ranking of K
answers is such a set too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ftcli.rl.losses import centering_loss, preference_loss
from ftcli.rl.sequences import Exchange

Weighting = Literal["prompt", "pair"]
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Comparison:
    """Distinct answers to one prompt and what is known of them, as indices into ``exchanges``: the (winner, loser) ``pairs``,
    the ``ties``, and for each of ``pairs`` the margin by which it was won (none given: all 0)."""

    exchanges: list[Exchange]
    pairs: list[tuple[int, int]]
    ties: list[tuple[int, int]] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Pairs:
    """The pairs of several comparisons over their concatenated answers, those of a prompt in a row and its ties last:
    ``winners``, ``losers``, ``weights``, ``margins``, ``is_tie``, each [pairs]."""

    winners: Tensor
    losers: Tensor
    weights: Tensor
    margins: Tensor
    is_tie: Tensor


def weight_of(comparisons: Sequence[Comparison], weighting: Weighting) -> float:
    """The sum of the weights of all pairs: what the loss of a whole step is divided by."""
    return float(
        len(comparisons) if weighting == "prompt" else sum(len(one.pairs) + len(one.ties) for one in comparisons)
    )


def flatten_pairs(
    comparisons: Sequence[Comparison], device: torch.device | None = None, weighting: Weighting = "prompt"
) -> Pairs:
    """Number the answers of ``comparisons`` through and collect the pairs under those numbers.

    With ``weighting`` ``prompt`` the weights of a prompt's pairs sum to 1; with ``pair`` each weighs 1.
    """
    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    margins: list[float] = []
    is_tie: list[bool] = []
    offset = 0
    for one in comparisons:
        pairs = [*one.pairs, *one.ties]
        winners += [offset + winner for winner, _ in pairs]
        losers += [offset + loser for _, loser in pairs]
        weights += [1.0 / len(pairs) if weighting == "prompt" else 1.0] * len(pairs)
        margins += [*(one.margins or [0.0] * len(one.pairs)), *[0.0] * len(one.ties)]
        is_tie += [False] * len(one.pairs) + [True] * len(one.ties)
        offset += len(one.exchanges)
    return Pairs(
        torch.tensor(winners, device=device),
        torch.tensor(losers, device=device),
        torch.tensor(weights, dtype=torch.float64, device=device),
        torch.tensor(margins, dtype=torch.float64, device=device),
        torch.tensor(is_tie, device=device),
    )


def comparison_loss(
    scores: Tensor, pairs: Pairs, centering: float = 0.0, label_smoothing: float = 0.0, log_nu: Tensor | None = None
) -> Tensor:
    """Weighted sum of the losses of ``pairs``, given ``scores`` of all answers.

    A tie has the target one half (`preference_loss`), or with ``log_nu`` all pairs follow Davidson's model
    (`davidson_loss`). Divide by `weight_of` the whole step, not of the micro-batch.
    """
    winners, losers = scores[pairs.winners], scores[pairs.losers]
    margins, weights = pairs.margins.to(scores.dtype), pairs.weights.to(scores.dtype)
    if log_nu is None:
        decided = preference_loss(winners, losers, margins, label_smoothing)
        loss = torch.where(pairs.is_tie, preference_loss(winners, losers, label_smoothing=0.5), decided)
    else:
        loss = davidson_loss(winners - losers - margins, pairs.is_tie, log_nu, label_smoothing)
    if centering:
        loss = loss + centering * centering_loss(winners, losers)
    return (loss * weights).sum()


def davidson_loss(difference: Tensor, is_tie: Tensor, log_nu: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood per pair in the tie model of Davidson 1970 (JASA 65), where win, loss and tie are as
    exp(d/2) : exp(-d/2) : nu.

    ``difference`` d [pairs] is winner - loser; ``label_smoothing`` is the assumed share of swapped wins. Without ties and with
    nu -> 0 this is the Bradley-Terry loss.
    """
    half = difference / 2
    outcomes = torch.stack([half, -half, log_nu.to(half.dtype).expand_as(half)], dim=-1)  # [pairs, 3]
    win, loss, tie = log_softmax(outcomes, dim=-1).unbind(-1)
    return torch.where(is_tie, -tie, -(1.0 - label_smoothing) * win - label_smoothing * loss)


def starting_log_nu(tie_share: float) -> float:
    """Davidson's log nu at which equal answers tie with probability ``tie_share``: nu / (2 + nu)."""
    return math.log(2.0 * tie_share / (1.0 - tie_share))


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
