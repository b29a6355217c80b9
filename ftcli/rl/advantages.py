"""Generalised advantage estimation and masked moments.

GAE: Schulman et al. 2015 (arXiv 1506.02438), eq. 16, as a backward recursion that skips masked tokens, so that a hole
in a response (a tool's output) neither decays nor bootstraps. Whitening is over the whole rollout batch and masked,
with the unbiased variance.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` is True; what stands elsewhere, even NaN, does not matter."""
    return values[mask.bool()].mean()


def masked_variance(values: Tensor, mask: Tensor, *, unbiased: bool = True) -> Tensor:
    """Variance where ``mask`` is True; 0 for a single value."""
    chosen = values[mask.bool()]
    squares = ((chosen - chosen.mean()) ** 2).sum()
    return squares / max(chosen.numel() - int(unbiased), 1)


def whiten(
    values: Tensor, mask: Tensor, *, shift_mean: bool = True, unbiased: bool = True, eps: float = 1e-8
) -> Tensor:
    """Scale ``values`` to unit variance (and zero mean unless ``shift_mean`` is False) over ``mask``; 0 elsewhere."""
    mean = masked_mean(values, mask)
    scaled = (values - mean) * torch.rsqrt(masked_variance(values, mask, unbiased=unbiased) + eps)
    return torch.where(mask.bool(), scaled if shift_mean else scaled + mean, torch.zeros_like(values))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """``(advantages, returns)``, each [B, R] and 0 where ``mask`` is False; the value after the last token is 0.

    ``values[:, t]`` is the value of the state in which token t was chosen.
    """
    advantages = torch.zeros_like(rewards)
    next_value = rewards.new_zeros(rewards.shape[0])  # [B]
    next_advantage = rewards.new_zeros(rewards.shape[0])  # [B]
    valid = mask.bool()
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = torch.where(valid[:, t], advantage, next_advantage)
        next_value = torch.where(valid[:, t], values[:, t], next_value)
        advantages[:, t] = advantage
    zero = torch.zeros_like(rewards)
    return torch.where(valid, advantages, zero), torch.where(valid, advantages + values, zero)
