"""How much of a win rate is length: what is left of it at equal lengths, and how far the preferences follow length.

The first is the length-controlled win rate of Dubois et al. 2024 (arXiv 2404.04475) without its terms for models and for
instructions, which need many models: a logistic regression of the preference on how much longer the answer is, read where the
lengths are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import spearmanr

Array = np.ndarray[Any, np.dtype[np.float64]]
RIDGE = 1e-3
"""Of the two coefficients, so that a length that separates the preferences perfectly still has an answer."""


def length_controlled(preferences: Sequence[float], longer_by: Sequence[float]) -> float | None:
    """The win rate that is left at equal lengths: sigma(b0) of ``preference ~ sigma(b0 + b1 tanh(d / sd(d)))``.

    ``preferences`` are 0 to 1 (a tie is one half), ``longer_by`` is d, by how much the preferred answer would be longer. With equal
    lengths everywhere it is the win rate itself. None where all differ by the same: length may then explain nothing or everything.
    """
    wanted, difference = np.asarray(preferences, dtype=np.float64), np.asarray(longer_by, dtype=np.float64)
    if len(wanted) == 0:
        return None
    spread = difference.std()
    if spread == 0:
        return None if difference.any() else float(wanted.mean())
    longer = np.tanh(difference / spread)  # [n]

    def loss(b: Array) -> tuple[float, Array]:
        logits = b[0] + b[1] * longer
        value = (np.logaddexp(0, logits) - wanted * logits).sum() + RIDGE * (b @ b)
        missed = expit(logits) - wanted
        return float(value), np.array([missed.sum(), missed @ longer]) + 2 * RIDGE * b

    return float(expit(minimize(loss, np.zeros(2), jac=True, method="BFGS").x[0]))


def length_correlation(preferences: Sequence[float], longer_by: Sequence[float]) -> float | None:
    """Spearman's rank correlation of the two; None where one of them does not vary, or for fewer than three pairs."""
    if len(preferences) < 3 or len(set(preferences)) < 2 or len(set(longer_by)) < 2:
        return None
    return float(spearmanr(preferences, longer_by).statistic)
