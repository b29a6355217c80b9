"""How varied a set of texts is, each measure at a fixed sample size: they all move with the number of rows otherwise.

``distinct2`` is the share of different pairs of words among 20,000. ``vendi`` (Friedman and Dieng 2023, arXiv:2210.02410) is the
effective number of different rows among 600, with the cosine of hashed n-grams as similarity: 1 if all are the same, 600 if no two
share a word. It hardly notices copies, so it stands beside the share of rows that are not near-duplicates. ``compression`` is of
lzma, since the 32 kB window of zlib misses copies that lie apart. The lists of first words and phrases show templates. A set too
small for a sample is measured whole where that means anything; compare such numbers only at equal ``rows`` or ``bytes``.

Samples are drawn by hash of the texts, so their order decides nothing.
"""

from __future__ import annotations

import lzma
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from scipy import sparse, special

from ftcli.data.features import Words, draw_sample, ngram_counts, unit_rows

DISTINCT_NGRAMS = 20_000
VENDI_ROWS = 600
COMPRESSED_BYTES = 1_000_000
SAMPLE_ROWS = 20_000
SAMPLE_CHARACTERS = 4_000_000
"""Bounds of the sample that words and phrases are counted in."""
PHRASE_WORDS = 3
SHOWN = 20


def measure(texts: Sequence[str], *, seed: int, near_unique_share: float | None) -> dict[str, Any]:
    """All measures of ``texts`` as JSON. ``near_unique_share`` is what near-duplicate removal kept, None if it did not run."""
    drawn = [texts[index] for index in draw_sample(texts, SAMPLE_ROWS, seed, "diversity")]
    before = accumulate((len(text) for text in drawn), initial=0)
    drawn = [text for text, characters in zip(drawn, before, strict=False) if characters < SAMPLE_CHARACTERS]
    table = Words.of(drawn)
    return {
        "rows": len(texts),
        "sampled": len(drawn),
        "near_unique_share": None if near_unique_share is None else round(near_unique_share, 6),
        "distinct2": distinct_pairs(table),
        "vendi": effective_rows(drawn[:VENDI_ROWS]),
        "compression": compression(drawn),
        "first_words": first_words(table),
        "phrases": phrases(table),
    }


def distinct_pairs(table: Words) -> dict[str, Any]:
    """The share of different ones among the first `DISTINCT_NGRAMS` pairs of neighbouring words."""
    _, hashes = table.ngrams(2)
    if len(hashes) < DISTINCT_NGRAMS:
        return {"value": None, "reason": f"{len(hashes)} pairs of words, {DISTINCT_NGRAMS} needed"}
    different = len(np.unique(hashes[:DISTINCT_NGRAMS]))
    return {"value": round(different / DISTINCT_NGRAMS, 6), "ngrams": DISTINCT_NGRAMS}


def effective_rows(texts: Sequence[str]) -> dict[str, Any]:
    """The Vendi score of those ``texts`` that have words, and its share of their number."""
    features = unit_rows(ngram_counts(Words.of(texts)))
    features = features[np.flatnonzero(np.diff(features.indptr))]
    rows = features.shape[0]
    if rows < 2:
        return {"value": None, "reason": f"{rows} rows with words, 2 needed"}
    value = vendi_score(features)
    return {"value": round(value, 6), "rows": rows, "share": round(value / rows, 6)}


def vendi_score(features: sparse.csr_array) -> float:
    """exp(-Σ λ ln λ) of the eigenvalues λ of K/n, K the cosines of ``features`` [n, ...], rows of length 1: from 1 to n."""
    kernel = (features @ features.T).toarray() / features.shape[0]
    eigenvalues = np.clip(np.linalg.eigvalsh(kernel), 0, None)
    return float(np.exp(special.entr(eigenvalues).sum()))


def compression(texts: Sequence[str]) -> dict[str, Any]:
    """How many times smaller lzma makes the first `COMPRESSED_BYTES` of ``texts``."""
    raw = "\n".join(texts).encode("utf-8", "surrogatepass")[:COMPRESSED_BYTES]
    if not raw:
        return {"ratio": None, "reason": "no text"}
    return {"ratio": round(len(raw) / len(lzma.compress(raw)), 6), "bytes": len(raw)}


def first_words(table: Words) -> list[dict[str, Any]]:
    """The words that most texts begin with, and the share of texts that do."""
    begins = np.flatnonzero(np.diff(table.row, prepend=-1))
    tally = Counter(table.words[index] for index in begins)
    return [
        {"text": word, "rows": rows, "share": round(rows / table.texts, 6)}
        for word, rows in sorted(tally.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    ]


def phrases(table: Words) -> list[dict[str, Any]]:
    """The runs of `PHRASE_WORDS` words that most texts have, as far as two or more do."""
    starts, hashes = table.ngrams(PHRASE_WORDS)
    ordered = np.lexsort((starts, hashes))
    starts, hashes, row = starts[ordered], hashes[ordered], table.row[starts[ordered]]
    new_phrase = np.diff(hashes, prepend=~hashes[:1]) != 0
    first = np.flatnonzero(new_phrase)
    rows = np.add.reduceat(new_phrase | (np.diff(row, prepend=-1) != 0), first, dtype=np.int64) if len(first) else first
    shown = [index for index in np.lexsort((hashes[first], -rows))[:SHOWN] if rows[index] > 1]
    named = [(table.name(int(starts[first[index]]), PHRASE_WORDS), int(rows[index])) for index in shown]
    return [
        {"text": name, "rows": count, "share": round(count / table.texts, 6)}
        for name, count in sorted(named, key=lambda item: (-item[1], item[0]))
    ]
