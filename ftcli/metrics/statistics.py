"""How sure a metric is: bootstrap intervals, paired differences, permutation p-values, Wilson intervals; scipy does the drawing.

Every metric is kept as *additive statistics*, one row an example, and a function from their column sums to the corpus value:
ROUGE is (score, 1) and a quotient, perplexity is (nll, tokens) and a quotient in log space, BLEU is its n-gram counts. So one
bootstrap and one permutation test serve all of them, examples are always the resampling unit (the tokens of one answer depend on
each other), and a corpus metric is recomputed and never averaged.

Sources: paired bootstrap, Koehn 2004 (aclanthology.org/W04-3250); approximate randomisation, which for a mean is the sign-flip
test and has no floor at zero as a bootstrap p has, Riezler and Maxwell 2005 (aclanthology.org/W05-0908).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Array = np.ndarray[Any, np.dtype[np.float64]]
BATCH = 256
"""Resamples held in memory at a time: BATCH x examples x statistics doubles."""


def quotient(sums: Array) -> Array:
    """The ratio of the two column sums [..., 2]."""
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Examples:
    """``statistics`` [n, k] of one metric; ``corpus`` maps column sums [..., k] to the metric [...]."""

    statistics: Array
    corpus: Callable[[Array], Array] = quotient

    def __len__(self) -> int:
        return len(self.statistics)

    def value(self) -> float:
        return float(self.corpus(self.statistics.sum(axis=0)))


def mean_of(values: Sequence[float]) -> Examples:
    """A metric that is the plain mean over examples."""
    return Examples(np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1))


@dataclass(frozen=True)
class Difference:
    """``delta`` is second minus first; ``low``/``high`` its bootstrap interval, ``se`` its jackknife standard error."""

    delta: float
    se: float
    low: float
    high: float
    p: float
    n: int


def interval(
    examples: Examples, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """``(low, high)`` of a corpus metric by the percentile bootstrap over examples; NaN for fewer than two examples."""
    if len(examples) < 2:
        return math.nan, math.nan

    def statistic(index: Any, axis: int = -1) -> Array:
        return examples.corpus(examples.statistics[index].sum(axis=-2))

    return _bootstrap(statistic, len(examples), confidence, resamples, seed)


def standard_error(examples: Examples) -> float:
    """The jackknife standard error of a corpus metric; for a plain mean it is exactly s / sqrt(n). NaN for one example."""
    return _jackknife(_leave_one_out(examples))


def difference(
    first: Examples, second: Examples, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """``second - first`` of one metric on the same examples in the same order: paired bootstrap and permutation test.

    The p-value exchanges the two models on each example independently; it is exact when 2^n is at most the larger of
    ``resamples`` and 2^16, else a Monte Carlo estimate that is never 0. Raises `ValueError` for unequal numbers of examples.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} examples against {len(second)}: differences need the same examples")
    n, corpus = len(first), first.corpus
    both = np.concatenate([first.statistics, second.statistics])  # [2n, k]
    delta = second.value() - first.value()
    if n < 2:
        return Difference(delta, math.nan, math.nan, math.nan, math.nan, n)

    def resampled(index: Any, axis: int = -1) -> Array:
        return corpus(second.statistics[index].sum(axis=-2)) - corpus(first.statistics[index].sum(axis=-2))

    def exchanged(index_first: Any, index_second: Any, axis: int = -1) -> Array:
        return corpus(both[index_second].sum(axis=-2)) - corpus(both[index_first].sum(axis=-2))

    exact = 2**n <= max(resamples, 2**16)
    test = stats.permutation_test(
        (np.arange(n), np.arange(n, 2 * n)),
        exchanged,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**n if exact else resamples,
        batch=BATCH,
        rng=np.random.default_rng(seed),
    )
    low, high = _bootstrap(resampled, n, confidence, resamples, seed)
    se = _jackknife(_leave_one_out(second) - _leave_one_out(first))
    return Difference(delta, se, low, high, float(test.pvalue), n)


def _leave_one_out(examples: Examples) -> Array:
    """The metric without each example in turn, [n]; NaN for one example."""
    if len(examples) < 2:
        return np.full(len(examples), math.nan)
    return examples.corpus(examples.statistics.sum(axis=0) - examples.statistics)


def _jackknife(left_out: Array) -> float:
    n = len(left_out)
    return math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))


def _bootstrap(
    statistic: Callable[..., Array], n: int, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    found = stats.bootstrap(
        (np.arange(n),),
        statistic,
        n_resamples=resamples,
        batch=BATCH,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share, e.g. of empty answers or of pairs that a reward model orders rightly."""
    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)
