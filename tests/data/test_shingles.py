"""Shingles against sets of strings, and the exact Jaccard similarity."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.dedup import normalise
from ftcli.data.hashing import BLOCK_CHARACTERS, Lookup, ngrams, words_of
from ftcli.data.shingles import (
    Shingles,
    boilerplate_of,
    concatenate,
    drop,
    jaccard,
    shingle,
)
from tests.data.planted import Prose

TEXTS = st.lists(st.text(alphabet="abc dé1.\n中日\U0001f600", max_size=40), max_size=12)


def windows(text: str) -> set[tuple[str, ...]]:
    """The shingles of a text as strings."""
    items = list(normalise(text))
    if items:
        items += [""] * (5 - len(items))
    return {tuple(items[start : start + 5]) for start in range(len(items) - 4)}


def exact(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


@given(texts=TEXTS)
def test_hashed_sets_are_as_large_and_as_similar_as_sets_of_strings(texts: list[str]) -> None:
    sets, strings = shingle(texts), [windows(text) for text in texts]
    assert sets.sizes.tolist() == [len(item) for item in strings]
    left, right = (side.ravel() for side in np.indices((len(texts), len(texts))))
    expected = [exact(strings[one], strings[other]) for one, other in zip(left, right, strict=True)]
    assert jaccard(sets.take(left), sets.take(right)).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_texts_shingles_do_not_depend_on_the_texts_beside_it() -> None:
    prose = Prose(1)
    texts = ["", "a", *(prose.text(prose.random.randint(1, 300)) for _ in range(300)), "", "x" * 2 * BLOCK_CHARACTERS]
    together = shingle(texts)
    alone = concatenate([shingle([text]) for text in texts])
    assert np.array_equal(together.values, alone.values)
    assert np.array_equal(together.offsets, alone.offsets)


def test_case_spacing_and_quotes_make_no_difference_and_symbols_do() -> None:
    sets = shingle(["What  is\n\u201cAI\u201d?", 'what is "ai"?', "x < y", "x <= y", "caf\u00e9", "cafe\u0301"])
    assert jaccard(sets.take(np.array([0, 4])), sets.take(np.array([1, 5]))).tolist() == [1, 1]
    assert jaccard(sets.take(np.array([2])), sets.take(np.array([3])))[0] < 1


def test_every_text_that_says_anything_has_a_shingle() -> None:
    sizes = shingle(["?", "no", "\u4e2d", "a b", "", " \n\t "]).sizes
    assert sizes.tolist() == [1, 1, 1, 1, 0, 0]


def test_no_texts_have_no_shingles() -> None:
    assert len(shingle([])) == 0
    assert jaccard(shingle([]), shingle([])).tolist() == []


def test_lone_surrogates_are_characters() -> None:
    assert shingle(["\ud800 a broken text"]).sizes.tolist() == [len("x a broken text") - 4]


def test_hashes_spread_evenly() -> None:
    """Chi-squared of the upper and of the lower 8 bits, 255 degrees of freedom: mean 255, standard deviation 22.6."""
    prose = Prose(2)
    values = np.unique(shingle([prose.text() for _ in range(3000)]).values)
    for bits in (values >> np.uint32(24), values & np.uint32(255)):
        counts = np.bincount(bits, minlength=256)
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 255 + 4 * 22.6


def test_what_half_of_the_texts_share_is_boilerplate_and_goes() -> None:
    prose = Prose(3)
    header = "Use the tools that are listed here. "
    texts = [header + prose.text(20) if index % 2 else prose.text(20) for index in range(400)]
    sets = shingle(texts)
    shared = boilerplate_of(sets, share=0.4)
    assert set(shared.tolist()) >= set(shingle([header]).values.tolist())
    assert len(shared) < 100
    left = drop(sets, shared)
    assert not set(left.values.tolist()) & set(shared.tolist())
    assert (left.sizes > 0).all()
    expected = [len(set(sets.values[a:b].tolist()) - set(shared.tolist())) for a, b in _bounds(sets)]
    assert left.sizes.tolist() == expected


def _bounds(sets: Shingles) -> list[tuple[int, int]]:
    return list(zip(sets.offsets[:-1].tolist(), sets.offsets[1:].tolist(), strict=True))


def test_a_text_of_boilerplate_alone_keeps_its_shingles() -> None:
    sets = shingle(["all the same text here"] * 60 + ["another one", ""])
    left = drop(sets, boilerplate_of(sets))
    assert left.sizes.tolist() == sets.sizes.tolist()


def test_a_few_texts_have_no_boilerplate() -> None:
    assert len(boilerplate_of(shingle(["all the same text here"] * 49))) == 0
    assert len(boilerplate_of(shingle(["all the same text here"] * 50))) == 18


@given(texts=st.lists(st.text(alphabet="ab1 _-.\u0301\u0639中ก日", max_size=30), min_size=1, max_size=8))
def test_words_hash_alike_if_they_are_alike(texts: list[str]) -> None:
    normal = [normalise(text) for text in texts]
    hashes, offsets = words_of(normal)
    split = [_words(text) for text in normal]
    assert np.diff(offsets).tolist() == [len(text) for text in split]
    flat = [word for text in split for word in text]
    assert len(set(zip(flat, hashes.tolist(), strict=True))) == len(set(flat)) == len(set(hashes.tolist()))


def _words(text: str) -> list[str]:
    spaced = "".join(f" {char} " if char in "中日ก" else char for char in text)
    spaced = "".join(char if unicodedata.category(char)[0] in "LNM" else " " for char in spaced)
    return spaced.split()


def test_ngrams_stay_within_a_text() -> None:
    hashes, offsets = words_of(["a b c d", "b c", "", "x a b c"])
    grams, counts = ngrams(hashes, offsets, 3)
    assert counts.tolist() == [2, 0, 0, 2]
    assert grams[0] == grams[3]  # a b c
    assert len(set(grams.tolist())) == 3


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50), st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_a_lookup_finds_what_is_there(keys: list[int], others: list[int]) -> None:
    ordered = np.unique(np.array(keys, dtype=np.uint32))
    hashes = np.array(others + keys, dtype=np.uint32)
    where, which = Lookup.of(ordered).find(hashes)
    assert where.tolist() == [index for index, value in enumerate(hashes.tolist()) if value in set(keys)]
    assert np.array_equal(ordered[which], hashes[where])


def test_datasketch_estimates_the_same_similarity() -> None:
    """An independent MinHash over the strings themselves; 1,024 permutations have a standard error of at most .016."""
    datasketch = pytest.importorskip("datasketch")
    prose = Prose(4)
    pairs = [(text, prose.edited(text, share)) for text in (prose.text(), prose.text()) for share in (0.05, 0.1, 0.3)]
    for one, other in pairs:
        signatures = []
        for text in (one, other):
            signature = datasketch.MinHash(num_perm=1024, seed=7)
            signature.update_batch(["".join(window).encode() for window in windows(text)])
            signatures.append(signature)
        ours = jaccard(shingle([one]), shingle([other]))[0]
        assert ours == pytest.approx(signatures[0].jaccard(signatures[1]), abs=0.06)


def test_permuting_the_texts_permutes_the_sets() -> None:
    prose = Prose(5)
    texts = [prose.text(prose.random.randint(0, 40)) for _ in range(100)]
    order = random.Random(0).sample(range(100), 100)
    mixed = shingle([texts[place] for place in order])
    assert np.array_equal(mixed.values, shingle(texts).take(np.array(order)).values)
