"""What texts are made of, as numbers: words, hashed n-grams, and samples that do not depend on the order of the rows.

A word is a run of letters, digits and marks between white space and punctuation; each character of a script that is
written without spaces, and each symbol or emoji, is a word of its own. Only distinct words are hashed (xxh3); n-grams are
combined from those hashes in numpy, twenty times faster than hashing every n-gram's text, and their names are looked up
again for the few that are shown.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from scipy import sparse

from ftcli.data.dedup import normalise

IntArray = np.ndarray[Any, np.dtype[np.int64]]
HashArray = np.ndarray[Any, np.dtype[np.uint64]]

BUCKET_BITS = 16
NGRAM_SIZES = (1, 2)

_ALONE = (  # Thai, Lao, Burmese, Khmer; kana and ideographs; arrows, operators, dingbats, emoji
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff\u2190-\u2bff\U0001f000-\U0001faff"
)
_BETWEEN = (  # ASCII and Latin-1 punctuation, that of Arabic, Devanagari, CJK and full width; variation selectors
    r"\s!-/:-@\[-`{-~\x00-\x1f\x7f-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u060c\u061b\u061f\u06d4\u0964\u0965"
    r"\u2000-\u206f\u20a0-\u20cf\u3000-\u303f\ufe00-\ufe0f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_WORD = re.compile(f"[{_ALONE}]|[^{_ALONE}{_BETWEEN}]+")
_FIRST = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xBF58476D1CE4E5B9)


def words(text: str) -> list[str]:
    """The words of ``text``, in lower case."""
    return _WORD.findall(normalise(text))


def digest(text: str) -> int:
    """A 64-bit hash that is the same on every machine and in every run."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def draw_sample(texts: Sequence[str], size: int, seed: int, purpose: str) -> list[int]:
    """Positions of ``size`` of the ``texts`` (of all, if fewer), drawn by hash and in the order of their draws.

    The sample and its order depend on the texts alone, not on their order; equal texts have draws of their own.
    """
    seen: Counter[str] = Counter()

    def ranked() -> Iterable[tuple[int, str, int]]:
        for position, text in enumerate(texts):
            seen[text] += 1
            yield digest(f"{purpose}:{seed}:{seen[text]}:{text}"), text, position

    return [position for _, _, position in heapq.nsmallest(size, ranked())]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of ``texts`` texts, one text after the other. ``row[i]`` is the text that ``words[i]`` is from."""

    texts: int
    words: list[str]
    row: IntArray
    hashes: HashArray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        split = [words(text) for text in texts]
        flat = [word for text in split for word in text]
        hash_of = {word: digest(word) for word in dict.fromkeys(flat)}
        row = np.repeat(np.arange(len(split)), [len(text) for text in split])
        hashes = np.fromiter(map(hash_of.__getitem__, flat), dtype=np.uint64, count=len(flat))
        return cls(len(split), flat, row, hashes)

    def ngrams(self, size: int) -> tuple[IntArray, HashArray]:
        """Where each n-gram of ``size`` words within one text begins, and its hash."""
        last = max(len(self.words) - size + 1, 0)
        hashes = self.hashes[:last]
        for offset in range(1, size):
            hashes = _mix(hashes * _FIRST + self.hashes[offset : offset + last])
        inside = self.row[:last] == self.row[size - 1 :] if last else np.zeros(0, dtype=bool)
        return np.flatnonzero(inside), hashes[inside]

    def name(self, start: int, size: int) -> str:
        """The n-gram of ``size`` words at ``start``."""
        return " ".join(self.words[start : start + size])


def _mix(hashes: HashArray) -> HashArray:
    """Spread every bit over all of them (the finaliser of splitmix64, shortened); modulo 2^64."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _SECOND
    return hashes ^ (hashes >> np.uint64(31))


def _buckets(hashes: HashArray) -> IntArray:
    return (hashes >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)


def ngram_counts(table: Words) -> sparse.csr_array:
    """How often each text has each hashed word and pair of words: [texts, 2^16]."""
    found = [table.ngrams(size) for size in NGRAM_SIZES]
    rows = np.concatenate([table.row[starts] for starts, _ in found])
    columns = np.concatenate([_buckets(hashes) for _, hashes in found])
    counts = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(table.texts, 2**BUCKET_BITS))
    return counts.tocsr()


def unit_rows(counts: sparse.csr_array) -> sparse.csr_array:
    """1 + ln(count), scaled so that each row has length 1; the product of two rows is their cosine. Empty rows stay 0."""
    weights = counts.copy()
    weights.data = 1 + np.log(weights.data)
    length = np.sqrt(weights.power(2).sum(axis=1))
    weights.data /= np.repeat(length, np.diff(weights.indptr))
    return weights


def bucket_names(table: Words, buckets: Iterable[int]) -> dict[int, str]:
    """The n-gram that occurs most often among those hashed to each of ``buckets``; of equals the first by alphabet."""
    wanted = np.fromiter(buckets, dtype=np.int64)
    tallies: dict[int, Counter[str]] = {int(bucket): Counter() for bucket in wanted}
    for size in NGRAM_SIZES:
        starts, hashes = table.ngrams(size)
        found = _buckets(hashes)
        for index in np.flatnonzero(np.isin(found, wanted)):
            tallies[int(found[index])][table.name(int(starts[index]), size)] += 1
    return {
        bucket: min(tally, key=lambda name: (-tally[name], name)) for bucket, tally in sorted(tallies.items()) if tally
    }
