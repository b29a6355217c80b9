"""How like the rows of use the training rows are: five measures of two sets of prompts, each with a traffic light.

``classifier`` and ``divergence`` compare n-grams (`ftcli.data.two_sample`), ``lengths`` gives Kolmogorov-Smirnov D and quantiles,
``categories`` the population stability index. ``coverage`` is the share of reference rows that have a training row within the
distance of their own 5th neighbour in the reference (Naeem et al. 2020, arXiv:2002.09797), beside what two samples of one
distribution would have, and the rows that are covered least, which is what to collect next.

A light is None where there are too few rows to judge by. All is drawn by hash of the texts, so their order decides nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from ftcli.data.dedup import normalise
from ftcli.data.features import Words, digest, draw_sample, ngram_counts, unit_rows
from ftcli.data.two_sample import (
    LEAST_ROWS,
    PERMUTATIONS,
    SHOWN,
    Array,
    classifier_test,
    divergence_test,
    judged,
    too_few,
)

KS_LIMITS = (0.1, 0.2)
PSI_LIMITS = (0.1, 0.25)
COVERAGE_LIMITS = (0.05, 0.2)
"""Upper ends of green and of amber; for coverage, of what is missing to the expected share."""

NEIGHBOURS = 5
SHOWN_CHARACTERS = 500
QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
BLOCK = 250


def compare(
    train_prompts: Sequence[str],
    reference_prompts: Sequence[str],
    *,
    seed: int,
    groups: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
    lengths: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    categories: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None,
    max_rows: int = 5000,
) -> dict[str, Any]:
    """All five measures of the training prompts against the reference's, as JSON.

    ``groups`` labels the near-duplicates among both (one label a prompt; without it, equal texts are a group). ``lengths``
    and ``categories`` map a name to the values of the training and of the reference rows; without ``lengths``, the prompts'
    characters are compared. At most ``max_rows`` rows of each side are drawn for the n-gram measures.
    """
    sides = (train_prompts, reference_prompts)
    drawn = [draw_sample(side, max_rows, seed, name) for side, name in zip(sides, ("train", "reference"), strict=True)]
    texts = [[side[index] for index in chosen] for side, chosen in zip(sides, drawn, strict=True)]
    labels = groups or ([normalise(text) for text in train_prompts], [normalise(text) for text in reference_prompts])
    table = Words.of(texts[0] + texts[1])
    counts = ngram_counts(table)
    train, reference = len(texts[0]), len(texts[1])
    equal = min(train, reference)
    pairs = [*range(equal), *range(train, train + equal)]
    pair_groups = [side[index] for side, chosen in zip(labels, drawn, strict=True) for index in chosen[:equal]]
    features = unit_rows(counts)
    characters = {"prompt characters": tuple([len(text) for text in side] for side in sides)}
    return {
        "rows": {"train": len(train_prompts), "reference": len(reference_prompts), "compared": equal},
        "classifier": classifier_test(features[pairs], pair_groups, table, seed),
        "divergence": divergence_test(counts[pairs], seed),
        "lengths": {name: length_shift(*values) for name, values in (lengths or characters).items()},
        "categories": {name: category_shift(*values, seed=seed) for name, values in (categories or {}).items()},
        "coverage": coverage(features[:train], features[train:], texts[1]),
    }


def length_shift(train: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Kolmogorov-Smirnov D of two samples, its asymptotic p, and their quantiles as [train, reference]."""
    fewer = min(len(train), len(reference))
    if fewer < LEAST_ROWS:
        return {"ks": None, **too_few(fewer)}
    found = stats.ks_2samp(train, reference, method="asymp")
    return {
        "ks": round(float(found.statistic), 6),
        "p": round(float(found.pvalue), 6),
        "light": judged(float(found.statistic), KS_LIMITS, fewer),
        "quantiles": {
            name: [round(float(np.quantile(side, share, method="inverted_cdf")), 6) for side in (train, reference)]
            for name, share in QUANTILES.items()
        },
    }


def category_shift(train: Sequence[str], reference: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Population stability index Σ(p - q) ln(p/q) with its table; a value that a side lacks counts there as half a row.

    The light is of the index less its mean over shuffled rows: that of many rare values is large by chance alone.
    """
    fewer = min(len(train), len(reference))
    if fewer < LEAST_ROWS:
        return {"psi": None, **too_few(fewer)}
    values = sorted(set(train) | set(reference))
    tallies = Counter(train), Counter(reference)
    counts = [np.array([tally[value] for value in values]) for tally in tallies]
    parts = stability(*counts)
    random = np.random.default_rng(digest(f"categories:{seed}"))
    drawn = random.multivariate_hypergeometric(counts[0] + counts[1], len(train), size=PERMUTATIONS)
    chance = float(stability(drawn, counts[0] + counts[1] - drawn).sum(axis=1).mean())
    order = sorted(range(len(values)), key=lambda index: (-parts[index], values[index]))
    return {
        "psi": round(float(parts.sum()), 6),
        "by_chance": round(chance, 6),
        "light": judged(float(parts.sum()) - chance, PSI_LIMITS, fewer),
        "table": [
            {
                "value": values[index],
                "train_share": round(int(counts[0][index]) / len(train), 6),
                "reference_share": round(int(counts[1][index]) / len(reference), 6),
                "psi": round(float(parts[index]), 6),
            }
            for index in order
        ],
    }


def stability(train: NDArray[Any], reference: NDArray[Any]) -> Array:
    """The part of each value in the population stability index of counts [..., values]."""
    p, q = (np.maximum(side, 0.5) / side.sum(axis=-1, keepdims=True) for side in (train, reference))
    return np.asarray((p - q) * np.log(p / q))


def coverage(train: sparse.csr_array, reference: sparse.csr_array, reference_texts: Sequence[str]) -> dict[str, Any]:
    """Of rows of length 1 (`unit_rows`): the share of reference rows with a training row inside their neighbourhood.

    Rows without words count on neither side. A training row that shares no n-gram covers nothing.
    """
    spoken = [np.flatnonzero(np.diff(side.indptr)) for side in (train, reference)]
    train, reference = train[spoken[0]], reference[spoken[1]]
    fewer = min(train.shape[0], reference.shape[0])
    if fewer < LEAST_ROWS:
        return {"share": None, **too_few(fewer)}
    nearest, radius = _similarities(train, reference)
    covered = float(((nearest >= radius) & (nearest > 0)).mean())
    expected = expected_coverage(train.shape[0], reference.shape[0])
    texts = [reference_texts[index] for index in spoken[1].tolist()]
    least = sorted({(round(float(value), 6), text) for value, text in zip(nearest, texts, strict=True)})[:SHOWN]
    return {
        "share": round(covered, 6),
        "expected": round(expected, 6),
        "light": judged(expected - covered, COVERAGE_LIMITS, fewer),
        "least_covered": [{"text": text[:SHOWN_CHARACTERS], "similarity": value} for value, text in least],
    }


def _similarities(train: sparse.csr_array, reference: sparse.csr_array) -> tuple[Array, Array]:
    """For each reference row: the cosine of its nearest training row, and of its 5th nearest other reference row."""
    nearest, radius = [], []
    for start in range(0, reference.shape[0], BLOCK):
        block = reference[start : start + BLOCK]
        nearest.append((block @ train.T).max(axis=1).toarray().ravel())
        among = (block @ reference.T).toarray()
        among[np.arange(len(among)), np.arange(start, start + len(among))] = -1.0  # not a neighbour of itself
        radius.append(np.partition(among, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS])
    rounding = 1e-9  # equal texts must come out equal
    return np.concatenate(nearest), np.concatenate(radius) - rounding


def expected_coverage(train_rows: int, reference_rows: int) -> float:
    """The coverage of two samples of one distribution: 1 - Π (N-i)/(M+N-i), i = 1 to 5 (Naeem et al.)."""
    steps = range(1, NEIGHBOURS + 1)
    return 1 - math.prod((reference_rows - i) / (train_rows + reference_rows - i) for i in steps)
