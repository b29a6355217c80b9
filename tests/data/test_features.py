"""Words, hashed n-grams and samples."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.features import Words, bucket_names, digest, draw_sample, ngram_counts, unit_rows, words

WORDS = ["red", "green", "blue", "one", "two"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic, Mr. O\u2019Neil!", ["don", "t", "panic", "mr", "o", "neil"]),
        ("snake_case += 1;", ["snake", "case", "1"]),
        ("cafe\u0301 \u00abna\u00efve\u00bb \u20ac5", ["caf\u00e9", "na\u00efve", "5"]),
        ("\u65e5\u672c\u3002GPT\u3068\uff01", ["\u65e5", "\u672c", "gpt", "\u3068"]),
        ("\u092d\u093e\u0937\u093e\u0964 \u0926\u094b", ["\u092d\u093e\u0937\u093e", "\u0926\u094b"]),
        ("\u0e44\u0e17\u0e22", ["\u0e44", "\u0e17", "\u0e22"]),
        ("good\U0001f600\u2192bad", ["good", "\U0001f600", "\u2192", "bad"]),
        ("?! ...", []),
    ],
)  # fmt: skip
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_the_digest_is_xxh3() -> None:
    assert digest("") == 0x2D06800538D394C2  # xxHash's own test vector for no input


def test_a_lone_surrogate_is_no_obstacle() -> None:
    assert draw_sample(["\ud800", "a"], 2, 1, "x") == draw_sample(["\ud800", "a"], 2, 1, "x")
    assert Words.of(["\ud800 a"]).words == ["\ud800", "a"]


@given(TEXTS)
def test_counts_are_those_of_words_and_pairs(texts: list[str]) -> None:
    counts = ngram_counts(Words.of(texts)).toarray()
    for row, text in zip(counts, texts, strict=True):
        split = text.split()
        expected = Counter(split) + Counter(pairwise(split))
        assert sorted(row[row > 0]) == sorted(expected.values())


@given(TEXTS)
def test_products_of_unit_rows_are_cosines(texts: list[str]) -> None:
    features = unit_rows(ngram_counts(Words.of(texts)))
    cosines = (features @ features.T).toarray()
    weighed = []
    for text in texts:
        tally: Counter[object] = Counter([*text.split(), *pairwise(text.split())])
        weighed.append({ngram: 1 + math.log(count) for ngram, count in tally.items()})
    for one, left in enumerate(weighed):
        for other, right in enumerate(weighed):
            length = math.sqrt(sum(v * v for v in left.values()) * sum(v * v for v in right.values()))
            product = sum(value * right.get(ngram, 0) for ngram, value in left.items())
            assert cosines[one, other] == pytest.approx(product / length if length else 0, abs=1e-12)


def test_a_cosine_by_hand() -> None:
    features = unit_rows(ngram_counts(Words.of(["a b", "a c", ""])))  # a, b, ab and a, c, ac share one of three
    assert (features @ features.T).toarray() == pytest.approx(np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]))


def test_ngrams_stay_within_their_text() -> None:
    table = Words.of(["one two three", "", "four five", "six"])
    starts, hashes = table.ngrams(2)
    assert [table.name(int(start), 2) for start in starts] == ["one two", "two three", "four five"]
    assert len(set(hashes.tolist())) == 3
    assert [len(table.ngrams(size)[0]) for size in (1, 3, 4)] == [6, 1, 0]


def test_the_same_ngram_has_one_hash_wherever_it_stands() -> None:
    _, hashes = Words.of(["a b a b", "b a"]).ngrams(2)
    assert hashes[0] == hashes[2]
    assert hashes[1] == hashes[3] != hashes[0]


def test_buckets_get_the_name_of_their_most_frequent_ngram() -> None:
    table = Words.of(["how many apples", "how many pears"])
    counts = ngram_counts(table)
    twice = np.flatnonzero(counts.toarray().sum(axis=0) == 2)
    assert sorted(bucket_names(table, twice.tolist()).values()) == ["how", "how many", "many"]
    empty = next(bucket for bucket in range(9) if bucket not in counts.indices)
    assert bucket_names(table, [empty]) == {}


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.integers(0, 9), st.integers(0, 30))
def test_a_sample_does_not_depend_on_the_order(texts: list[str], seed: int, size: int) -> None:
    drawn = [texts[index] for index in draw_sample(texts, size, seed, "x")]
    mixed = random.Random(seed).sample(texts, len(texts))
    assert [mixed[index] for index in draw_sample(mixed, size, seed, "x")] == drawn
    assert len(drawn) == min(size, len(texts))
    assert not Counter(drawn) - Counter(texts)


def test_seed_and_purpose_change_a_sample() -> None:
    texts = [f"text {index}" for index in range(100)]
    samples = [draw_sample(texts, 50, *key) for key in ((1, "a"), (2, "a"), (1, "b"))]
    assert len({tuple(sorted(sample)) for sample in samples}) == 3


def test_copies_are_drawn_apart() -> None:
    drawn = draw_sample(["same"] * 1000 + ["other"] * 1000, 1000, 1, "x")
    assert 400 < sum(index < 1000 for index in drawn) < 600  # over six standard deviations of a fair draw
