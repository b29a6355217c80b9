"""One scale for three or more sources, from who beats whom: Bradley-Terry, with ties as half wins, and Davidson's model of ties.

    bradley_terry(items, judgements) -> list[Strength]      # Strength(source, items, beta, low, high, .elo, .elo_low, .elo_high)
    davidson(items, judgements) -> Davidson                 # Davidson(strengths: dict[source, beta], nu)
    fit_bradley_terry(won), fit_davidson(won, tied)         # the same from counts of items

A strength beta is a log odds: among decided items, j beats i with probability sigma(beta_j - beta_i). The first source is the zero.
Each item counts once for each two of its sources, by its outcome (`ftcli.human.scores`). Intervals are from the Bayesian bootstrap
over items: each weighs as much as a draw from Gamma(1), and an item of the prior as one from Gamma(prior). So a source that never
lost, of which every resample would say the same, has an interval too; for two sources without ties it is the one of Jeffreys.

Sources: Bradley and Terry 1952; Davidson 1970 (JASA 65:317); the fit by I-LSR, Maystre and Grossglauser 2015 (choix); the Bayesian
bootstrap, Rubin 1981; the scale of chess, on which 400 points are odds of ten to one, Elo 1978.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import choix
import numpy as np
from scipy import optimize
from scipy.special import logsumexp

from ftcli.human.scores import collapse, sources

if TYPE_CHECKING:
    from ftcli.human.tasks import Item, Judgement

Array = np.ndarray[Any, np.dtype[np.float64]]
ELO = 400 / math.log(10)
"""Points of a unit of log odds."""
PRIOR = 0.5
"""Items that each source is taken to have won against each other before anything is seen: an undefeated one stays finite."""
STEPS = 10_000


@dataclass(frozen=True)
class Strength:
    """``beta`` with its bootstrap interval, 0 for the first source by definition; ``items`` on which the source was compared."""

    source: str
    items: int
    beta: float
    low: float
    high: float

    @property
    def elo(self) -> float:
        return ELO * self.beta

    @property
    def elo_low(self) -> float:
        return ELO * self.low

    @property
    def elo_high(self) -> float:
        return ELO * self.high


@dataclass(frozen=True)
class Davidson:
    """Equal sources tie with probability ``nu`` / (2 + ``nu``)."""

    strengths: dict[str, float]
    nu: float


def bradley_terry(
    items: Sequence[Item],
    judgements: Sequence[Judgement],
    *,
    prior: float = PRIOR,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Strength]:
    """Every source's strength, in the order in which the items name them; empty where no item was judged."""
    names = sources(items)
    outcomes = _outcomes(items, judgements, names)  # [n, k, k], NaN where an item does not compare the two
    if not len(outcomes):
        return []
    patterns, counts = np.unique(
        np.nan_to_num((1 + outcomes) / 2), axis=0, return_counts=True
    )  # half wins [patterns, k, k]
    rng, k = np.random.default_rng(seed), len(names)
    weights = rng.gamma(counts, size=(resamples, len(counts)))  # of items that say the same, summed
    before = rng.gamma(prior, size=(resamples, k, k)) * (1 - np.eye(k)) if prior else np.zeros((resamples, k, k))
    fitted = np.array([fit_bradley_terry(won, 0.0) for won in np.tensordot(weights, patterns, 1) + before])
    tail = (1 - confidence) / 2
    low, high = np.quantile(fitted, [tail, 1 - tail], axis=0)
    best = fit_bradley_terry(np.tensordot(counts, patterns, 1), prior)
    compared = (~np.isnan(outcomes)).any(axis=2).sum(axis=0)
    return [
        Strength(name, int(compared[i]), float(best[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)
    ]


def davidson(items: Sequence[Item], judgements: Sequence[Judgement], *, prior: float = PRIOR) -> Davidson | None:
    """The strengths where ties are an outcome of their own and not half a win; None where no item was judged."""
    names = sources(items)
    outcomes = _outcomes(items, judgements, names)
    if not len(outcomes):
        return None
    beta, nu, _ = fit_davidson((outcomes == 1).sum(axis=0), (outcomes == 0).sum(axis=0), prior)
    return Davidson(dict(zip(names, beta.tolist(), strict=True)), nu)


def fit_bradley_terry(won: Array, prior: float = PRIOR) -> Array:
    """Strengths [k], the first 0, from ``won`` [k, k]: on how many items (a tie is half a one) the row beats the column.

    Without a prior each source must have beaten and been beaten by others, directly or through third ones.
    """
    k = len(won)
    beta = choix.ilsr_pairwise_dense(won + prior * (1 - np.eye(k)), max_iter=STEPS)
    return np.asarray(beta - beta[0])


def fit_davidson(won: Array, tied: Array, prior: float = PRIOR) -> tuple[Array, float, float]:
    """(strengths [k] with the first 0, nu, negative log likelihood) from ``won`` [k, k] and the symmetric ``tied`` [k, k].

    P(i beats j) : P(tie) : P(j beats i) = pi_i : nu sqrt(pi_i pi_j) : pi_j with pi = exp(beta). ``prior`` is that many wins, and as
    many ties, more for each two, both ways.
    """
    k = len(won)
    above = np.triu_indices(k, 1)
    counts = np.stack([won[above], tied[above], won.T[above]]) + prior  # [3, pairs]

    def loss(parameters: Array) -> tuple[float, Array]:
        beta, log_nu = np.concatenate([[0.0], parameters[:-1]]), parameters[-1]
        one, other = beta[above[0]], beta[above[1]]
        logits = np.stack([one, log_nu + (one + other) / 2, other])
        total = logsumexp(logits, axis=0)
        missed = counts.sum(axis=0) * np.exp(logits - total) - counts  # [3, pairs]: the gradient in the logits
        slope = np.zeros(k)
        np.add.at(slope, above[0], missed[0] + missed[1] / 2)
        np.add.at(slope, above[1], missed[2] + missed[1] / 2)
        return float((counts * (total - logits)).sum()), np.append(slope[1:], missed[1].sum())

    found = optimize.minimize(loss, np.zeros(k), jac=True, method="BFGS")
    return np.concatenate([[0.0], found.x[:-1]]), float(np.exp(found.x[-1])), float(found.fun)


def _outcomes(items: Sequence[Item], judgements: Sequence[Judgement], names: Sequence[str]) -> Array:
    """[n, k, k] over the items that compare anything: 1 where the row beats the column, -1 where it loses, 0 a tie, NaN unknown."""
    place = {item.id: row for row, item in enumerate(items)}
    outcomes = np.full((len(items), len(names), len(names)), math.nan)
    for (i, first), (j, second) in combinations(enumerate(names), 2):
        for score in collapse(items, judgements, first, second):
            outcomes[place[score.item], j, i] = score.outcome
            outcomes[place[score.item], i, j] = -score.outcome
    return np.asarray(outcomes[~np.isnan(outcomes).all(axis=(1, 2))])
