"""Scored answers to held-out prompts, who beat whom, and how sure a share of right pairs is.

Pairs of one prompt are not independent, so intervals resample prompts: the cluster bootstrap (Cameron, Gelbach and Miller
2008, Review of Economics and Statistics 90). Where each prompt has one pair it is Wilson's (1927, JASA 22), which also says
something where every pair is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ftcli.rl.preferences import wilson_interval

Array = np.ndarray[Any, np.dtype[Any]]
Figures = dict[str, Any]

RESAMPLES, BATCH = 2000, 256
"""Resamples of prompts, and how many are held in memory at a time."""


@dataclass(frozen=True)
class Judged:
    """One prompt's answers with their scores and lengths in tokens; (winner, loser) ``pairs`` and ``ties`` index them."""

    scores: Sequence[float]
    lengths: Sequence[int]
    pairs: Sequence[tuple[int, int]]
    ties: Sequence[tuple[int, int]] = ()
    source: str = ""


@dataclass(frozen=True)
class PairTable:
    """All pairs that people decided, each column [pairs]: the number of its prompt, score and tokens of winner and loser."""

    prompt: Array
    winner: Array
    loser: Array
    winner_length: Array
    loser_length: Array

    @classmethod
    def of(cls, judged: Sequence[Judged]) -> PairTable:
        rows = [
            (number, one.scores[w], one.scores[lost], one.lengths[w], one.lengths[lost])
            for number, one in enumerate(judged)
            for w, lost in one.pairs
        ]
        if not rows:
            raise ValueError("no pair has a winner")
        prompt, *columns = zip(*rows, strict=True)
        return cls(np.array(prompt), *(np.array(column, dtype=np.float64) for column in columns))

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def margin(self) -> Array:
        """Score of the winner less that of the loser; the model's probability that the winner wins is its sigmoid."""
        return self.winner - self.loser

    @property
    def longer(self) -> Array:
        """Tokens of the winner less those of the loser."""
        return self.winner_length - self.loser_length


def right(difference: Array) -> Array:
    """1 where a winner is ahead, one half where nobody is, else 0."""
    return (np.sign(difference) + 1) / 2


class Interval(NamedTuple):
    """A 95 % interval of a share and what it rests on: ``wilson`` or ``cluster bootstrap``."""

    low: float
    high: float
    method: str


def accuracy_interval(correct: Array, prompt: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Of the mean of ``correct`` [pairs] (0, one half or 1), where pairs with an equal ``prompt`` [pairs] hang together.

    Where every prompt has the same share the bootstrap would claim certainty; Wilson's interval then counts prompts.
    """
    _, number, sizes = np.unique(prompt, return_inverse=True, return_counts=True)
    sums = np.bincount(number, weights=correct)
    shares = sums / sizes
    if sizes.max() == 1 or shares.min() == shares.max():
        return Interval(*wilson_interval(float(shares.sum()), len(sizes)), "wilson")

    def mean(chosen: Array, axis: int = -1) -> Array:
        total: Array = sums[chosen].sum(axis=axis) / sizes[chosen].sum(axis=axis)
        return total

    found = stats.bootstrap(
        (np.arange(len(sizes)),),
        mean,
        n_resamples=resamples,
        batch=BATCH,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high), "cluster bootstrap")


def agreement(first: Sequence[float], second: Sequence[float], pairs: Sequence[tuple[int, int]]) -> Figures:
    """How far two scorings of the same answers are apart, and for which share of ``pairs`` they disagree on the order."""
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    distance = np.abs(one - two)
    orders = [(np.sign(one[w] - one[lost]), np.sign(two[w] - two[lost])) for w, lost in pairs]
    return {
        "answers": len(one),
        "pairs": len(pairs),
        "max_difference": float(distance.max()),
        "mean_difference": float(distance.mean()),
        "order_flips": mean_or_none(np.array([a != b for a, b in orders], dtype=np.float64)),
    }


def mean_or_none(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None
