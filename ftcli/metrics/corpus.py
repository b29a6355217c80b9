"""Corpus scores from the column sums of a metric's statistics: sacreBLEU's BLEU, chrF and TER, for many resamples at once.

sacreBLEU computes one score at a time, which for 10 000 resamples of two models takes a quarter of a minute; these take [..., k]
sums and agree with it (tests). `corpus_of` finds the function by the name that is kept with stored statistics, so that they can be
resampled where no text is left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftcli.metrics.statistics import Array, quotient

BLEU_ORDERS = 4
CHRF_BETA = 2.0


def corpus_of(kind: str) -> Callable[[Array], Array]:
    """The function of ``kind``: ``quotient``, ``bleu/<tokenizer>``, ``chrf`` or ``ter``. Raises `ValueError` for another."""
    name = kind.partition("/")[0]
    if name not in _CORPUS:
        raise ValueError(f"no corpus function {kind}; there are {', '.join(_CORPUS)}")
    return _CORPUS[name]


def bleu_of(sums: Array) -> Array:
    """BLEU with exponential smoothing, 0 to 100 [...], of [..., 10]: words of answers, of references, n-gram matches, n-grams.

    Smoothing "exp" of sacreBLEU is method 3 of Chen and Cherry 2014 (aclanthology.org/W14-3346): the k-th order without a match
    counts 1 / 2^k matches. Without any 4-gram, or any match, the score is 0.
    """
    answers, references = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + BLEU_ORDERS], sums[..., 2 + BLEU_ORDERS :]
    with np.errstate(divide="ignore", invalid="ignore"):
        brevity = np.exp(np.minimum(0.0, 1.0 - references / answers))
        precisions = np.where(matches == 0, 0.5 ** np.cumsum(matches == 0, axis=-1), matches) / totals
        score = 100.0 * brevity * np.exp(np.log(precisions).mean(axis=-1))
    return np.where((matches[..., 0] > 0) & (totals[..., -1] > 0), score, 0.0)


def chrf_of(sums: Array) -> Array:
    """chrF, 0 to 100 [...], of [..., 3 k]: for each of k orders the n-grams of answers, of references, and those in both.

    chrF++ has 8 orders (characters to 6, words to 2), chrF without words has 6.
    """
    by_order = sums.reshape(*sums.shape[:-1], -1, 3)
    answers, references, matches = by_order[..., 0], by_order[..., 1], by_order[..., 2]
    counts = (answers > 0) & (references > 0)
    orders = np.maximum(counts.sum(axis=-1), 1)
    precision = np.where(counts, matches / np.maximum(answers, 1.0), 0.0).sum(axis=-1) / orders
    recall = np.where(counts, matches / np.maximum(references, 1.0), 0.0).sum(axis=-1) / orders
    weight = CHRF_BETA**2
    below = weight * precision + recall
    return np.asarray(100.0 * (1.0 + weight) * precision * recall / np.where(below > 0, below, 1.0))


def ter_of(sums: Array) -> Array:
    """TER, edits per 100 words [...], of [..., 2]: edits and words of the references. Answers to nothing score 100."""
    edits, words = sums[..., 0], sums[..., 1]
    return 100.0 * np.where(words > 0, edits / np.where(words > 0, words, 1.0), edits > 0)


_CORPUS: dict[str, Callable[[Array], Array]] = {"quotient": quotient, "bleu": bleu_of, "chrf": chrf_of, "ter": ter_of}
