"""Multiple choice by log-likelihood: the answer that the model finds likeliest for its length, and what guessing would score."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats


def pick(nll: Sequence[float], sizes: Sequence[int]) -> int:
    """The index of the choice with the least negative log-likelihood per unit of ``sizes``, its UTF-8 bytes.

    Bytes and not tokens, so that models with different tokenizers are asked the same thing; without the division a short choice
    would win for being short. Of equal choices the first is picked: callers put the right one last, so that a model that tells
    nothing apart scores nothing. A choice whose nll is NaN is never picked before one that has a number. Raises `ValueError` for
    no choices, or a size below 1.
    """
    if not nll or len(nll) != len(sizes) or min(sizes) < 1:
        raise ValueError(f"{len(nll)} choices with sizes {list(sizes)}: each needs a size of at least 1")
    costs = [math.inf if math.isnan(cost) else cost / size for cost, size in zip(nll, sizes, strict=True)]
    return costs.index(min(costs))


def chance_p(right: int, n: int, chance: float) -> float:
    """One-sided exact binomial p of at least ``right`` of ``n`` by guessing, each right with probability ``chance``."""
    return float(stats.binomtest(right, n, chance, alternative="greater").pvalue)
