"""Estimators of KL(policy || reference) from the policy's own samples, and the coefficient that weighs it in the
reward.

k1 is the one that belongs into the reward: the gradient it causes is exactly the KL's, while k2 and k3 in the reward
point elsewhere (near the reference k3 even points away from it; arXiv 2510.01555, 2512.21852). k3 serves for logging.
Estimators: http://joschu.net/blog/kl-approx.html. Adaptive coefficient: Ziegler et al. 2019 (arXiv 1909.08593),
section 2.2.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Per token log p - log q; unbiased, may be negative."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Per token (log p - log q)^2 / 2; as a loss its expected gradient is exactly that of KL(p || q)."""
    return 0.5 * (logprobs - ref_logprobs) ** 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Per token q/p - 1 - log(q/p); unbiased, never negative, small variance."""
    difference = ref_logprobs - logprobs
    return torch.expm1(difference) - difference


class KLController(Protocol):
    """Holds the KL coefficient; ``update`` sees the mean KL of a rollout's sequences (sums over tokens) after each
    rollout."""

    value: float

    def update(self, sequence_kl: float, episodes: int) -> None: ...


class FixedKL:
    def __init__(self, value: float) -> None:
        self.value = value

    def update(self, sequence_kl: float, episodes: int) -> None:
        """A fixed coefficient stays."""


class AdaptiveKL:
    """Moves the coefficient so that the KL of whole sequences approaches ``target``; the error is clipped to +-0.2."""

    def __init__(self, value: float, target: float, horizon: int) -> None:
        self.value = value
        self.target = target
        self.horizon = horizon

    def update(self, sequence_kl: float, episodes: int) -> None:
        error = min(max(sequence_kl / self.target - 1.0, -0.2), 0.2)
        self.value *= 1.0 + error * episodes / self.horizon


def kl_controller(coefficient: float, target: float | None, horizon: int) -> KLController:
    """Fixed without a target, adaptive with one."""
    return FixedKL(coefficient) if target is None else AdaptiveKL(coefficient, target, horizon)
