"""Many texts hashed at once, as arrays: their code points, words, and windows of either.

A window's hash is a polynomial in its items, modulo 2^32 or 2^64, and then the finaliser of MurmurHash3, which makes every
bit of it as good as random. Nothing depends on the machine or the run.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, and odd: so it has an inverse modulo 2^64."""
INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
BLOCK_CHARACTERS = 1 << 16
"""Characters hashed at a time: their arrays fit a core's cache."""
ALONE = 2
LETTERS_END = 0x20000
LAST_CLASS = 0x3FFFF
"""The planes of further ideographs end here; what lies above is not text."""
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x9FFF),  # ideographs
    (0xF900, 0xFAFF),
)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which of many hashes are in a sorted set of well-mixed ones, through a table that most others miss."""

    keys: NDArray[Any]
    table: NDArray[np.bool_]
    shift: int

    @classmethod
    def of(cls, keys: NDArray[Any]) -> Lookup:
        """``keys`` are ascending and of an unsigned type."""
        bits = min(26, max(10, len(keys).bit_length() + 4))
        shift = keys.dtype.itemsize * 8 - bits
        table = np.zeros(1 << bits, dtype=bool)
        table[keys >> keys.dtype.type(shift)] = True
        return cls(keys, table, shift)

    def find(self, hashes: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the ``hashes`` that are in the set, and where in the set they are."""
        likely = np.flatnonzero(self.table[hashes >> hashes.dtype.type(self.shift)])
        places = np.searchsorted(self.keys, hashes[likely])
        places[places == len(self.keys)] = 0
        is_in = self.keys[places] == hashes[likely] if len(self.keys) else np.zeros(len(likely), dtype=bool)
        return likely[is_in], places[is_in]


def offsets_of(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Where each of consecutive runs begins, and the end: [n + 1]."""
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def whole_windows(offsets: NDArray[np.int64], width: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which windows of ``width`` consecutive items lie in one run: [items - width + 1], and how many do in each run [n]."""
    items = int(offsets[-1])
    is_whole = np.ones(max(items - width + 1, 0), dtype=bool)
    for back in range(1, width):
        last = offsets[1:] - back
        is_whole[last[(last >= 0) & (last < len(is_whole))]] = False
    return is_whole, np.maximum(np.diff(offsets) - width + 1, 0)


def counts_of(flags: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of each run's ``flags`` are set [n]."""
    sums = offsets_of(flags)
    return sums[offsets[1:]] - sums[offsets[:-1]]


def code_points(text: str) -> NDArray[np.uint32]:
    if text.isascii():
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)


def text_blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Consecutive texts of `BLOCK_CHARACTERS` in all, or single longer ones."""
    block: list[str] = []
    characters = 0
    for text in texts:
        if block and characters + len(text) > BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
        block.append(text)
        characters += len(text)
    if block:
        yield block


def words_of(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash of each word of `normalise`d texts, and where each text's words begin (offsets [n + 1]).

    Words are runs of letters, digits and marks; in scripts written without spaces each character is a word.
    """
    codes = code_points(" ".join(texts) + " ")
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1
    kinds = _classes()[np.minimum(codes, LAST_CLASS)]
    is_word, is_alone = kinds > 0, kinds == ALONE
    begins = is_word.copy()
    begins[1:] &= ~is_word[:-1] | is_alone[1:] | is_alone[:-1]
    ends = is_word.copy()
    ends[:-1] &= ~is_word[1:] | begins[1:]
    starts, stops = np.flatnonzero(begins), np.flatnonzero(ends) + 1
    counts = counts_of(begins, offsets_of(lengths))
    return mix64(_spans(codes, starts, stops)), offsets_of(counts)


def ngrams(
    hashes: NDArray[np.uint64], offsets: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash of every ``size`` consecutive items of each run, in order, and how many there are in each run [n]."""
    is_whole, counts = whole_windows(offsets, size)
    return mix64(polynomial(hashes, size, MULTIPLIER)[is_whole]), counts


def polynomial(items: NDArray[Any], width: int, multiplier: Any) -> NDArray[Any]:
    """The hash of each window of ``width`` items, unmixed; arithmetic wraps around in the items' type."""
    count = max(len(items) - width + 1, 0)
    hashes = items[:count].copy()
    for offset in range(1, width):
        hashes *= multiplier
        hashes += items[offset : offset + count]
    return hashes


def mix32(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finaliser of MurmurHash3, 32 bits: every bit in decides every bit out, no two hashes become one."""
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(multiplier)
    hashes ^= hashes >> np.uint32(16)
    return hashes


def mix64(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of MurmurHash3, 64 bits."""
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hashes ^= hashes >> np.uint64(33)
        hashes *= np.uint64(multiplier)
    hashes ^= hashes >> np.uint64(33)
    return hashes


def _spans(codes: NDArray[np.uint32], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The polynomial of each span of ``codes``, from differences of one running sum (modulo 2^64)."""
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes * _powers(MULTIPLIER, len(codes)), out=sums[1:])
    return (sums[stops] - sums[starts]) * _powers(INVERSE, len(codes))[starts]


def _powers(number: np.uint64, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, number)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


@cache
def _classes() -> NDArray[np.uint8]:
    """For each code point up to `LAST_CLASS`: 0 between words, 1 in a word, `ALONE` a word of its own."""
    classes = np.zeros(LAST_CLASS + 1, dtype=np.uint8)
    classes[:LETTERS_END] = [unicodedata.category(chr(code))[0] in "LMN" for code in range(LETTERS_END)]
    for first, last in UNSPACED:
        classes[first : last + 1] = np.where(classes[first : last + 1] > 0, ALONE, 0)
    classes[LETTERS_END:] = ALONE
    return classes
