"""Diversity at fixed sample sizes, against hand arithmetic and plain counting."""

from __future__ import annotations

import json
import math
import random
import zlib
from itertools import pairwise
from typing import Any

import pytest

from ftcli.data.diversity import compression, distinct_pairs, effective_rows, first_words, measure, phrases
from ftcli.data.features import Words
from tests.data.test_two_sample import texts


def measured(rows: list[str]) -> dict[str, Any]:
    return measure(rows, seed=1, near_unique_share=0.9)


@pytest.mark.parametrize(
    ("rows", "score"),
    [
        (["the same words"] * 5, 1),
        (["one", "two", "three", "four"], 4),
        (["one", "one", "one", "two"], 4 / 3**0.75),  # blocks of 3/4 and 1/4: exp of their entropy
        (["a b", "a c"], 3 / 2 ** (2 / 3)),  # cosine 1/3, so eigenvalues 2/3 and 1/3
    ],
)
def test_the_vendi_score_by_hand(rows: list[str], score: float) -> None:
    found = effective_rows(rows)
    assert found["value"] == pytest.approx(score, abs=1e-6)
    assert found["share"] == pytest.approx(score / len(rows), abs=1e-6)
    assert found["rows"] == len(rows)


def test_rows_without_words_are_not_scored() -> None:
    assert effective_rows(["one", "two", "?!"])["rows"] == 2
    assert effective_rows(["one", "?!"]) == {"value": None, "reason": "1 rows with words, 2 needed"}


def test_distinct_pairs_are_counted_among_the_first_twenty_thousand() -> None:
    rows = texts(4000, 1)
    pairs = [pair for row in rows for pair in pairwise(row.split())][:20_000]
    assert distinct_pairs(Words.of(rows))["value"] == len(set(pairs)) / 20_000


def test_too_few_pairs_are_no_measure() -> None:
    enough, lacking = "a b " * 10_001, "a b " * 10_000
    assert distinct_pairs(Words.of([enough])) == {"value": 0.0001, "ngrams": 20_000}
    assert distinct_pairs(Words.of([lacking])) == {"value": None, "reason": "19999 pairs of words, 20000 needed"}


def test_more_rows_of_one_kind_change_nothing() -> None:
    few, many = texts(2500, 1), texts(10_000, 1)
    plain = [len({pair for row in rows for pair in pairwise(row.split())}) / (9 * len(rows)) for rows in (few, many)]
    assert plain[0] > 1.4 * plain[1]
    found = [measured(rows) for rows in (few, many)]
    assert found[0]["distinct2"]["value"] == pytest.approx(found[1]["distinct2"]["value"], abs=0.02)
    assert found[0]["vendi"]["value"] == pytest.approx(found[1]["vendi"]["value"], rel=0.03)
    assert found[0]["vendi"]["rows"] == found[1]["vendi"]["rows"] == 600


def test_compression_sees_copies_that_lie_far_apart() -> None:
    noise = random.Random(1).randbytes(50_000).hex()
    ratio = compression([noise, noise])["ratio"]
    assert ratio > 1.8 * compression([noise])["ratio"]
    assert len(zlib.compress((noise * 2).encode())) > 1.9 * len(
        zlib.compress(noise.encode())
    )  # a smaller window does not


def test_no_more_than_a_megabyte_is_compressed() -> None:
    assert compression(["a" * 700_000, "b" * 700_000])["bytes"] == 1_000_000
    assert compression([]) == {"ratio": None, "reason": "no text"}


def test_first_words_and_phrases_by_hand() -> None:
    table = Words.of(["Write a short poem", "write a short list, write a short list", "", "What is it?", "what else"])
    assert first_words(table) == [
        {"text": "what", "rows": 2, "share": 0.4},
        {"text": "write", "rows": 2, "share": 0.4},
    ]
    assert phrases(table) == [{"text": "write a short", "rows": 2, "share": 0.4}]  # no phrase of one row alone


def test_phrases_are_counted_by_row() -> None:
    rows = [f"as an ai model number {index % 3}, as an ai" for index in range(30)]
    found = {item["text"]: item["rows"] for item in phrases(Words.of(rows))}
    assert found["as an ai"] == found["ai model number"] == 30
    assert found["model number 1"] == 10
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_order_of_the_rows_decides_nothing() -> None:
    rows = [*texts(700, 1), *texts(50, 1)]
    assert measured(rows) == measured(random.Random(2).sample(rows, len(rows)))
    assert measured(rows) != measure(rows, seed=2, near_unique_share=0.9)


def test_the_sample_is_bounded_in_characters() -> None:
    rows = [f"{index} " + "x" * 999_998 for index in range(10)]
    assert measured(rows)["sampled"] in (4, 5)
    assert measured(rows)["rows"] == 10


@pytest.mark.parametrize("rows", [[], [""], ["one"], ["?", "!"]])
def test_hardly_any_text_is_measured_without_fault(rows: list[str]) -> None:
    found = json.loads(json.dumps(measure(rows, seed=1, near_unique_share=None), allow_nan=False))
    assert found["near_unique_share"] is found["vendi"]["value"] is found["distinct2"]["value"] is None


def test_copies_hardly_move_vendi_which_is_why_the_unique_share_stands_beside_it() -> None:
    rows = texts(400, 1)
    once, twice = measured(rows), measured(rows * 2)
    assert twice["vendi"]["value"] > 0.85 * once["vendi"]["value"]
    assert math.isclose(twice["near_unique_share"], 0.9)
