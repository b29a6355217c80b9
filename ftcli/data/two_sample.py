"""Are two samples of texts from one distribution? Two tests on their n-grams, each with a traffic light.

Both take the rows of the two samples one after the other, as many of each. Without enough rows to judge by, a light is None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse, special

from ftcli.data.features import Words, bucket_names, digest

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]
Light = Literal["green", "amber", "red"]

LEAST_ROWS = 30
"""Rows on each side under which nothing is computed."""
JUDGED_ROWS = 300
"""Rows on each side under which there is no light: the AUC of two equal samples would often leave the green."""
AUC_LIMITS = (0.55, 0.65)
EXCESS_LIMITS = (0.01, 0.05)
"""Upper ends of green and of amber."""

FOLDS = 3
VOCABULARY = 8192
PENALTY = 1.0
PERMUTATIONS = 200
BATCH = 10
SHOWN = 20


def judged(value: float, limits: tuple[float, float], rows: int) -> Light | None:
    """Green up to the first limit, amber up to the second, else red; None with fewer than `JUDGED_ROWS` rows on a side."""
    if rows < JUDGED_ROWS:
        return None
    value = round(value, 6)  # as it is shown
    return "green" if value <= limits[0] else "amber" if value <= limits[1] else "red"


def too_few(rows: int) -> dict[str, Any]:
    return {"light": None, "reason": f"{rows} rows on the smaller side, at least {LEAST_ROWS} needed"}


def auc(positive: Sequence[float] | Array, negative: Sequence[float] | Array) -> float:
    """The chance that a ``positive`` score exceeds a ``negative`` one, ties counted half (Mann-Whitney U, scaled)."""
    losers = np.sort(negative)
    beaten, not_ahead = (np.searchsorted(losers, positive, side=side).sum() for side in ("left", "right"))
    return float((beaten + not_ahead) / (2 * len(positive) * len(negative)))


def classifier_test(features: sparse.csr_array, groups: Sequence[Hashable], table: Words, seed: int) -> dict[str, Any]:
    """Can a linear classifier tell the samples apart: its AUC on rows held out, and the n-grams that it goes by.

    Lopez-Paz and Oquab 2017 (arXiv:1610.06545), with AUC, 0.5 if it cannot, instead of accuracy. Rows of one group are in one of
    the three folds, else copies would be learnt by heart; and the folds' AUCs are averaged, since scores of different models do
    not compare. ``features`` [2n, 2^16] are `unit_rows`, ``table`` holds the words that they were made of.
    """
    equal = features.shape[0] // 2
    if equal < LEAST_ROWS:
        return {"auc": None, **too_few(equal)}
    is_train = np.arange(2 * equal) < equal
    used = _most_widespread(features)
    features = features[:, used]
    fold = fold_groups(groups, seed)
    scored = [_fold_auc(features, is_train, fold == index) for index in range(FOLDS)]
    known = [value for value in scored if value is not None]
    if not known:
        return {"auc": None, "light": None, "reason": "too few different prompts for three folds"}
    value = float(np.mean(known))
    return {
        "auc": round(value, 6),
        "chance_se": round(chance_error(equal), 6),
        "light": judged(value, AUC_LIMITS, equal),
        **_telling_ngrams(features, is_train, used, table),
    }


def chance_error(rows: int) -> float:
    """The standard error of the AUC of two samples of ``rows`` rows from one distribution.

    That of Mann-Whitney, times √2: cross-validation scores each row by each other one once in either direction, which says the
    same twice (drawn from real prompts, 150 times: 1.3).
    """
    return math.sqrt(2 * (2 * rows + 1) / (12 * rows * rows))


def _most_widespread(features: sparse.csr_array) -> Indices:
    """The `VOCABULARY` columns that most rows have, and at least two; a rarer n-gram teaches a classifier nothing.

    The bound also keeps BLAS from starting threads for every vector, which made fits ten times slower on a busy machine.
    """
    rows = np.bincount(features.indices, minlength=features.shape[1])
    order = np.argsort(-rows, kind="stable")[:VOCABULARY]
    return np.sort(order[rows[order] >= 2])


def _fold_auc(features: sparse.csr_array, is_train: Mask, held_out: Mask) -> float | None:
    """The AUC on the rows ``held_out`` of a model of the others; None if either lacks a side."""
    if min(len(set(is_train[part].tolist())) for part in (held_out, ~held_out)) < 2:
        return None
    weights, _ = fit_logistic(features[~held_out], is_train[~held_out])
    scores = features[held_out] @ weights
    return auc(scores[is_train[held_out]], scores[~is_train[held_out]])


def fold_groups(groups: Sequence[Hashable], seed: int) -> Indices:
    """The fold of each row, 0 to 2, with each group in one fold: the largest first, each to the emptiest."""
    sizes = Counter(groups)
    ranked = sorted(sizes, key=lambda group: (-sizes[group], digest(f"fold:{seed}:{group}"), str(group)))
    filled, fold_of = [0] * FOLDS, {}
    for group in ranked:
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    return np.array([fold_of[group] for group in groups])


def fit_logistic(features: sparse.csr_array, positive: Mask) -> tuple[Array, float]:
    """Weights and intercept that minimise summed log loss + ``PENALTY``/2 · |weights|²; the intercept is free.

    Truncated Newton steps in a trust region, as in liblinear: the loss is smooth and convex, so ten steps reach the minimum to
    more places than L-BFGS does, in a fifth of the time where BLAS threads have neighbours.
    """
    signs = np.where(positive, 1.0, -1.0)
    transposed = features.T.tocsr()

    def loss(parameters: Array) -> tuple[float, Array]:
        weights = parameters[:-1]
        margins = signs * (features @ weights + parameters[-1])
        pull = -signs * special.expit(-margins)
        value = np.logaddexp(0, -margins).sum() + PENALTY / 2 * weights @ weights
        return float(value), np.append(transposed @ pull + PENALTY * weights, pull.sum())

    def curvature(parameters: Array, direction: Array) -> Array:
        scores = features @ parameters[:-1] + parameters[-1]
        bend = special.expit(scores) * special.expit(-scores) * (features @ direction[:-1] + direction[-1])
        return np.append(transposed @ bend + PENALTY * direction[:-1], bend.sum())

    start = np.zeros(features.shape[1] + 1)
    solved = optimize.minimize(loss, start, jac=True, hessp=curvature, method="trust-ncg", options={"gtol": 1e-6}).x
    return solved[:-1], float(solved[-1])


def _telling_ngrams(features: sparse.csr_array, is_train: Mask, used: Indices, table: Words) -> dict[str, Any]:
    """The n-grams that tell the sides apart, by their part in the difference of the mean scores."""
    weights, _ = fit_logistic(features, is_train)
    sides = features[is_train], features[~is_train]
    part = weights * (sides[0].mean(axis=0) - sides[1].mean(axis=0))
    shares = [np.asarray((side > 0).mean(axis=0)) for side in sides]
    order = np.lexsort((used, -part))
    shown = {
        name: [index for index in order if sign * weights[index] > 0 and part[index] > 0][:SHOWN]
        for name, sign in (("over_represented", 1), ("missing", -1))
    }
    names = bucket_names(table, sorted({int(used[index]) for chosen in shown.values() for index in chosen}))
    return {
        name: [
            {
                "ngram": names[int(used[index])],
                "weight": round(float(weights[index]), 6),
                "train_share": round(float(shares[0][index]), 6),
                "reference_share": round(float(shares[1][index]), 6),
            }
            for index in chosen
        ]
        for name, chosen in shown.items()
    }


def jensen_shannon(left: Array, right: Array) -> Array:
    """Divergence in bits, 0 to 1, of pairs of count vectors: [..., n] and [..., n] to [...]."""
    p = left / left.sum(axis=-1, keepdims=True)
    q = right / right.sum(axis=-1, keepdims=True)
    nats = special.entr((p + q) / 2).sum(axis=-1) - (special.entr(p) + special.entr(q)).sum(axis=-1) / 2
    return np.asarray(np.maximum(nats / math.log(2), 0))


def divergence_test(counts: sparse.csr_array, seed: int) -> dict[str, Any]:
    """Jensen-Shannon divergence of the samples' n-gram distributions, beside that of shuffled labels.

    Two samples of one distribution are far from 0: 0.2 with 2,000 short texts each, 0.57 with 100. Only the excess says anything.
    """
    equal = counts.shape[0] // 2
    if equal < LEAST_ROWS:
        return {"jsd": None, **too_few(equal)}
    counts = counts[:, np.unique(counts.indices)]
    total = counts.sum(axis=0)
    real = np.repeat([1.0, 0.0], equal)
    random = np.random.default_rng(digest(f"shuffle:{seed}"))
    shuffled = [random.permuted(np.tile(real, (BATCH, 1)), axis=1) for _ in range(PERMUTATIONS // BATCH)]
    null = np.concatenate([_side_divergence(counts, labels, total) for labels in shuffled])
    jsd = float(_side_divergence(counts, real[None], total)[0])
    return {
        "jsd": round(jsd, 6),
        "chance_mean": round(float(null.mean()), 6),
        "chance_sd": round(float(null.std(ddof=1)), 6),
        "excess": round(jsd - float(null.mean()), 6),
        "p": round((1 + int((null >= jsd).sum())) / (PERMUTATIONS + 1), 6),
        "light": judged(jsd - float(null.mean()), EXCESS_LIMITS, equal),
    }


def _side_divergence(counts: sparse.csr_array, labels: Array, total: Array) -> Array:
    """The divergence of the rows labelled 1 from the others, for each row of ``labels`` [batch, rows]."""
    side = (counts.T @ labels.T).T
    return jensen_shannon(side, total - side)
