"""How sure a metric is: bootstrap intervals, paired tests, Holm's correction and what a sample could have shown at all.

Every metric is kept as *additive statistics*, one row an example, and a function from their column sums to the corpus value:
ROUGE is (score, 1) and a quotient, perplexity is (nll, tokens) and a quotient in log space, BLEU is its n-gram counts. So one
bootstrap and one permutation test serve all of them, examples are always the resampling unit (the tokens of one answer depend on
each other), and a corpus metric is recomputed and never averaged. A resample is a row of counts and an exchange a row of zeros
and ones, so that a block of either is one matrix product with the statistics.

Sources: paired bootstrap, Koehn 2004 (aclanthology.org/W04-3250); approximate randomisation, which for a mean is the sign-flip
test and has no floor at zero as a bootstrap p has, Riezler and Maxwell 2005 (aclanthology.org/W05-0908); McNemar 1947; Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

Array = np.ndarray[Any, np.dtype[np.float64]]
BLOCK = 1 << 20
"""Cells (resamples x examples) in memory at a time."""
EXACT_ROWS = 16
"""Up to so many examples every exchange of the two models is tried, and p is exact."""
ROUNDING = 1e-12
"""Relative difference below which two values of a statistic are ties: sums in another order differ by so much."""


def quotient(sums: Array) -> Array:
    """The ratio of the two column sums [..., 2]; NaN or infinite where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Examples:
    """``statistics`` [n, k] of one metric; ``corpus`` maps column sums [..., k] to the metric [...].

    ``kind`` is the name of ``corpus``, by which a saved metric finds it again (`ftcli.metrics.figures`).
    """

    statistics: Array
    corpus: Callable[[Array], Array] = quotient
    kind: str = "quotient"

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
    draws = [examples.corpus(counts @ examples.statistics) for counts in _counts(len(examples), resamples, seed)]
    return _percentiles(draws, confidence)


def standard_error(examples: Examples) -> float:
    """The jackknife standard error of a corpus metric; for a plain mean it is exactly s / sqrt(n). NaN for fewer than
    two examples."""
    return _jackknife(_leave_one_out(examples))


def difference(
    first: Examples, second: Examples, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """``second - first`` of one metric on the same examples in the same order: paired bootstrap and permutation test.

    Raises `ValueError` for unequal numbers of examples. With fewer than two all but ``delta`` is NaN.
    """
    low, high = paired_interval(first, second, confidence=confidence, resamples=resamples, seed=seed)
    p = permutation_p(first, second, resamples=resamples, seed=seed)
    return Difference(second.value() - first.value(), paired_error(first, second), low, high, p, len(first))


def paired_interval(
    first: Examples, second: Examples, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """``(low, high)`` of ``second - first``: the percentile bootstrap that draws an example of both models together."""
    change = _change(first, second)
    if len(first) < 2:
        return math.nan, math.nan
    draws = []
    for counts in _counts(len(first), resamples, seed):
        sums = counts @ first.statistics  # [B, k]
        draws.append(second.corpus(sums + counts @ change) - first.corpus(sums))
    return _percentiles(draws, confidence)


def paired_error(first: Examples, second: Examples) -> float:
    """The jackknife standard error of ``second - first``; NaN for one example."""
    return _jackknife(_leave_one_out(second) - _leave_one_out(first))


def permutation_p(first: Examples, second: Examples, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of "the two models are alike", which exchanges them on each example independently.

    Exact up to `EXACT_ROWS` examples; else (k + 1) / (resamples + 1), never 0. NaN for one example, or where an exchange leaves
    the metric without a value.
    """
    change, n = _change(first, second), len(first)
    if n < 2:
        return math.nan
    below, above = first.statistics.sum(axis=0), second.statistics.sum(axis=0)
    values = first.value(), second.value()
    draws = []
    for exchanged in _every_exchange(n) if n <= EXACT_ROWS else _exchanges(n, resamples, seed):
        moved = exchanged @ change  # [B, k]
        draws.append(second.corpus(above - moved) - first.corpus(below + moved))
    null = np.abs(np.concatenate(draws))
    if not (np.isfinite(null).all() and np.isfinite(values).all()):
        return math.nan
    ties = ROUNDING * max(null.max(), *np.abs(values))
    extreme = int((null >= abs(values[1] - values[0]) - ties).sum())
    return extreme / len(null) if n <= EXACT_ROWS else (extreme + 1) / (len(null) + 1)


def mcnemar(worse: int, better: int) -> float:
    """Exact two-sided p from the pairs in which only the first, and in which only the second, is right; 1 without any."""
    discordant = worse + better
    return float(stats.binomtest(worse, discordant, 0.5).pvalue) if discordant else 1.0


def yeses(examples: Examples) -> int | None:
    """How many rows are a yes; None where any row is something else than one yes or no."""
    if examples.kind != "quotient" or (examples.statistics[:, 1] != 1).any():
        return None
    column = examples.statistics[:, 0]
    return int(column.sum()) if set(column.tolist()) <= {0.0, 1.0} else None


def disagreements(first: Examples, second: Examples) -> tuple[int, int] | None:
    """The rows to which only the first, and those to which only the second says yes; None unless all rows are a yes or a no."""
    if yeses(first) is None or yeses(second) is None:
        return None
    change = _change(first, second)[:, 0]
    return int((change < 0).sum()), int((change > 0).sum())


def share_change(down: int, up: int, n: int) -> tuple[float, float]:
    """The change of a share of yes and no, and its standard error, with one row more that changes each way.

    That is the estimate of Bonett and Price 2012 (Journal of Educational and Behavioral Statistics 37:479). The plain error is 0
    where the two sides happen to agree on every row, as if no other row could ever tell them apart.
    """
    falls, rises = (down + 1) / (n + 2), (up + 1) / (n + 2)
    return rises - falls, math.sqrt((rises + falls - (rises - falls) ** 2) / (n + 2))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family that hold together: the chance that any of them is a false alarm stays below alpha (step-down)."""
    order = sorted(range(len(p)), key=lambda index: p[index])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def detectable(se: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The change that a two-sided test finds with probability ``power``, given the standard error of the paired difference."""
    return float(special.ndtri(1 - alpha / 2) + special.ndtri(power)) * se


def fewest_rows(alpha: float) -> int:
    """With fewer examples than this no paired test, however clear the case, has p < alpha: 2 / 2^n is the least there is."""
    return math.floor(1 - math.log2(alpha)) + 1


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share, e.g. of empty answers or of pairs that a reward model orders rightly."""
    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def _change(first: Examples, second: Examples) -> Array:
    """Second minus first, [n, k]. Sums of ``second`` are taken as sums of ``first`` and of this, so that equal models differ by
    exactly nothing, whatever order a matrix product adds in."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} examples against {len(second)}: differences need the same examples")
    return second.statistics - first.statistics


def _leave_one_out(examples: Examples) -> Array:
    """The metric without each example in turn, [n]; NaN for one example."""
    if len(examples) < 2:
        return np.full(len(examples), math.nan)
    return examples.corpus(examples.statistics.sum(axis=0) - examples.statistics)


def _jackknife(left_out: Array) -> float:
    n = len(left_out)
    if not n:
        return math.nan
    return math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))


def _percentiles(draws: list[Array], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail])
    return float(low), float(high)


def _counts(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each of n examples is in each resample, [B, n] a block, ``resamples`` rows in all."""
    rng = np.random.default_rng(seed)
    for size in _blocks(n, resamples):
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _exchanges(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """1 where an example's two models change places, [B, n] a block, ``resamples`` rows in all."""
    rng = np.random.default_rng([seed, 1])  # another stream than the bootstrap's
    for size in _blocks(n, resamples):
        yield rng.integers(2, size=(size, n), dtype=np.uint8).astype(np.float64)


def _every_exchange(n: int) -> Iterator[Array]:
    """All exchanges that leave the last example alone; the others are their mirror images and differ by the sign alone."""
    yield (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1).astype(np.float64)


def _blocks(n: int, resamples: int) -> Iterator[int]:
    size = max(1, BLOCK // n)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
