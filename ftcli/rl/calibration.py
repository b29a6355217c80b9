"""Whether a reward model's margins are probabilities: sigmoid(margin) beside how often the preferred answer won.

A pair has no first and second side, so each is looked at from the side that the model prefers: probabilities are one half or
more. Guo et al. 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize

from ftcli.rl.judged import Array, Figures, PairTable, mean_or_none, right

BINS = 10


def log_loss(margins: Array, temperature: float = 1.0) -> float:
    """Mean of -log sigmoid(margin / temperature), in nats."""
    return float(np.logaddexp(0.0, -margins / temperature).mean())


def calibration(margins: Array) -> Figures:
    """The expected calibration error (eq. 3) and its table: in `BINS` bins of the model's probability for the answer that it
    prefers, the mean of that probability beside how often that answer won."""
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    correct = right(margins)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    place = np.minimum(((confidence - 0.5) / (0.5 / BINS)).astype(int), BINS - 1)
    rows: list[Figures] = []
    for number in range(BINS):
        own = place == number
        row = {"low": float(edges[number]), "high": float(edges[number + 1]), "pairs": int(own.sum())}
        rows.append(row | {"confidence": mean_or_none(confidence[own]), "accuracy": mean_or_none(correct[own])})
    gaps = [row["pairs"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["pairs"]]
    return {"ece": sum(gaps) / len(margins), "bins": rows}


def fit_temperature(margins: Array) -> float | None:
    """The temperature T with the least `log_loss` of ``margins`` (section 4.2).

    None where there is no least: every margin is at least 0 (T falls to 0), or their mean is 0 or less (T grows without end).
    """
    if len(margins) == 0 or margins.min() >= 0 or margins.mean() <= 0:
        return None

    def slope(log_inverse: float) -> float:  # of the log-loss, which is convex in 1 / T
        return float((-margins / (1 + np.exp(np.clip(margins * math.exp(log_inverse), -700, 700)))).mean())

    low, high = -1.0, 1.0
    while slope(low) >= 0:
        low *= 2
    while slope(high) <= 0:
        high *= 2
    return math.exp(-float(optimize.brentq(slope, low, high, xtol=1e-12)))


def temperature(table: PairTable, seed: int = 0) -> Figures:
    """A temperature fitted on the pairs of one half of the prompts, and the log-loss of the other half without it and
    with it."""
    prompts = np.random.default_rng(seed).permutation(np.unique(table.prompt))
    is_fitted = np.isin(table.prompt, prompts[: len(prompts) // 2])
    fitted, other = table.margin[is_fitted], table.margin[~is_fitted]
    value = fit_temperature(fitted)
    return {
        "value": value,
        "fitted_pairs": len(fitted),
        "other_pairs": len(other),
        "log_loss": log_loss(other),
        "scaled_log_loss": None if value is None else log_loss(other, value),
    }
