"""How far people follow length: how often the longer answer wins, and what is left of a win rate at equal lengths.

    length_effect(scores) -> LengthEffect       # of scores = collapse(items, judgements, first, second)
        .items .longer .low .high .p            # decided items of unequal length, the share that the longer answer wins
        .controlled .controlled_low .controlled_high    # the second source's win rate at equal lengths
        .text() -> str

The second is the length-controlled win rate of Dubois et al. 2024 (arXiv 2404.04475) without its terms for models and instructions:
a logistic regression of the preference on how much longer the answer is, read where the lengths are equal. Its interval is the
profile likelihood's, which stays honest where all preferences are alike, and errs on the wide side where many are ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats
from scipy.special import expit

from ftcli.human.preference import sign_test, wilson
from ftcli.human.scores import Score, sign

Array = np.ndarray[Any, np.dtype[np.float64]]
RIDGE = 1e-3
"""Of the two coefficients, so that a length that separates the preferences perfectly still has an answer."""
FAR = 20.0
"""Log odds from the estimate at which the search for an end of the interval stops: a share within 1e-8 of 0 or 1."""


@dataclass(frozen=True)
class LengthEffect:
    """None is what has no value: no decided item of unequal length, or lengths that all differ by the same."""

    items: int
    longer: float | None
    low: float | None
    high: float | None
    p: float
    controlled: float | None
    controlled_low: float | None
    controlled_high: float | None

    def text(self) -> str:
        if self.longer is None:
            return "No decided item has answers of unequal length."
        found = (
            f"The longer answer wins {self.longer:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.items} decided items."
        )
        if self.controlled is None:
            return f"{found} What is left at equal lengths cannot be told: the lengths do not vary."
        span = f"[{self.controlled_low:.3f}, {self.controlled_high:.3f}]"
        return f"{found} At equal lengths the win rate is {self.controlled:.3f} {span}."


def length_effect(scores: Sequence[Score], *, confidence: float = 0.95) -> LengthEffect:
    """What length explains of one score an item; lengths are in characters."""
    follows = [score.outcome * sign(score.longer_by) for score in scores]
    longer, shorter = follows.count(1), follows.count(-1)
    decided = longer + shorter
    low, high = wilson(longer, decided, confidence) if decided else (None, None)
    rate, rate_low, rate_high = length_controlled(
        [(1 + score.outcome) / 2 for score in scores], [score.longer_by for score in scores], confidence
    ) or (None, None, None)
    return LengthEffect(
        items=decided,
        longer=longer / decided if decided else None,
        low=low,
        high=high,
        p=sign_test(longer, shorter),
        controlled=rate,
        controlled_low=rate_low,
        controlled_high=rate_high,
    )


def length_controlled(
    preferences: Sequence[float], longer_by: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float] | None:
    """(rate, low, high) at equal lengths: sigma(b0) of ``preference ~ sigma(b0 + b1 tanh(d / sd(d)))``, d being ``longer_by``.

    ``preferences`` are 0 to 1, a tie one half. None without preferences, or where all lengths differ by the same: length may then
    explain nothing or everything.
    """
    wanted, differences = np.asarray(preferences, dtype=np.float64), np.asarray(longer_by, dtype=np.float64)
    if not len(wanted) or not differences.std():
        return None
    design = np.stack([np.ones(len(wanted)), np.tanh(differences / differences.std())], axis=1)  # [n, 2]

    def loss(b: Array) -> tuple[float, Array]:
        logits = design @ b
        value = (np.logaddexp(0, logits) - wanted * logits).sum() + RIDGE * (b @ b)
        return float(value), design.T @ (expit(logits) - wanted) + 2 * RIDGE * b

    def excess(b0: float) -> float:
        """Above 0 where b0 is outside the interval."""
        profile = optimize.minimize_scalar(lambda b1: loss(np.array([b0, b1]))[0]).fun
        return 2 * float(profile - best.fun) - float(stats.chi2.ppf(confidence, 1))

    best = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS")
    centre = float(best.x[0])
    low, high = (
        float(expit(optimize.brentq(excess, centre, end))) if excess(end) > 0 else float(expit(end))
        for end in (centre - FAR, centre + FAR)
    )
    return float(expit(centre)), low, high
