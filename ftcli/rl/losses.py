"""The losses of PPO and of reward models, per token or per pair, so that the caller alone chooses the denominator.

A caller that works in micro-batches divides the sum over tokens by the token count of the whole minibatch; averaging
the means of micro-batches would weigh tokens by how they happened to be grouped. PPO: Schulman et al. 2017 (arXiv
1707.06347), eq. 7; clipped value loss as in their released code; dual clip: Ye et al. 2020 (arXiv 1912.09729).
Preferences: Bradley and Terry 1952 as used by Ouyang et al. 2022 (arXiv 2203.02155), eq. 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftcli.rl.advantages import masked_variance

LOG_RATIO_LIMIT = 20.0


@dataclass(frozen=True)
class Clipped:
    """A loss [B, R] not yet averaged, and where the clip decided it (True, [B, R])."""

    loss: Tensor
    clipped: Tensor


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """p_new / p_old per token, with the log-ratio limited to +-20 so that it stays finite."""
    return torch.exp((logprobs - old_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    cliprange: float,
    cliprange_high: float | None = None,
    dual_clip: float | None = None,
) -> Clipped:
    """PPO's clipped surrogate per token, to be minimised.

    The ratio is clipped to ``[1 - cliprange, 1 + cliprange_high]`` (``cliprange_high`` None: the same). ``dual_clip``
    c > 1 bounds the loss of tokens with a negative advantage by ``-c * advantage``.
    """
    ratio = importance_ratio(logprobs, old_logprobs)
    high = cliprange if cliprange_high is None else cliprange_high
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - cliprange, 1.0 + high)
    loss = torch.maximum(free, bounded)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return Clipped(loss, bounded > free)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, cliprange: float | None) -> Clipped:
    """Half the squared error per token, the larger of the plain one and that of the value kept within ``cliprange``
    of the old one.

    ``cliprange`` None: no clip.
    """
    plain = (values - returns) ** 2
    if cliprange is None:
        return Clipped(0.5 * plain, torch.zeros_like(plain, dtype=torch.bool))
    moved = values - old_values
    # Not clipped, it is the value itself: old + (value - old) may differ by rounding, and would count as clipped.
    near = torch.where(moved.abs() <= cliprange, values, old_values + moved.clamp(-cliprange, cliprange))
    bounded = (near - returns) ** 2
    return Clipped(0.5 * torch.maximum(plain, bounded), bounded > plain)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over ``mask``; 1 is a perfect critic, 0 no better than a constant."""
    residual = masked_variance(returns - values, mask, unbiased=False)
    return float(1.0 - residual / masked_variance(returns, mask, unbiased=False))


def preference_loss(
    winners: Tensor, losers: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Bradley-Terry loss per pair: ``-log sigmoid(winner - loser - margin)``.

    ``label_smoothing`` is the assumed share of swapped labels; 0.5 is a pair that is a tie.
    """
    logits = winners - losers - margin
    return -(1.0 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


def centering_loss(winners: Tensor, losers: Tensor) -> Tensor:
    """``(winner + loser)^2`` per pair: keeps scores near 0, which the preference loss alone leaves free (arXiv
    2312.09244)."""
    return (winners + losers) ** 2
