"""Keys of exact duplicates, prompts, answers and openings, and which duplicate is kept."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.dedup import (
    kept_of,
    keys_of,
    normalise,
    number_key,
    opening_text,
    rank_by,
    split_key,
    target_text,
    whole_text,
)


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(*texts: str, system: str = "", line: int = 1) -> dict[str, Any]:
    start = [said("system", system)] if system else []
    turns = [said("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)]
    return {"id": str(line), "messages": [*start, *turns], "meta": {"file": "f", "line": line}}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    sides = {"chosen": [said("assistant", chosen)], "rejected": [said("assistant", rejected)]}
    return {"prompt": [said("user", prompt)], **sides}


def ranking(prompt: str, *candidates: tuple[str, int]) -> dict[str, Any]:
    listed = [{"content": content, "rank": rank} for content, rank in candidates]
    return {"prompt": [said("user", prompt)], "candidates": listed}


def judged(prompt: str, answer: str, label: bool) -> dict[str, Any]:
    return {"prompt": [said("user", prompt)], "completion": [said("assistant", answer)], "label": label}


def calling(arguments: dict[str, Any]) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    return {"messages": [said("user", "q"), {**said("assistant", ""), "tool_calls": [call]}]}


EVERY_KEY = ("exact", "prompt", "answer", "opening")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What  is\nthis?", "what is this?"),
        ("don\u2019t say \u201cno\u201d", 'don\'t say "no"'),
        ("caf\u00e9", "cafe\u0301"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_case_space_quotes_and_composition_do_not_matter(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    for key in EVERY_KEY:
        for pair_of in ((chat(one, one), chat(other, other)), ({"text": one}, {"text": other})):
            first, second = (getattr(keys_of(row), key) for row in pair_of)
            assert first == second


@pytest.mark.parametrize(
    ("one", "other"), [("x <= y", "x < y"), ("return -1", "return 1"), ("exec 3>", "exec 3<"), ("7 apples", "8 apples")]
)
def test_symbols_and_digits_matter(one: str, other: str) -> None:
    for key in EVERY_KEY:
        assert getattr(keys_of(chat(one, one)), key) != getattr(keys_of(chat(other, other)), key)


@given(st.text(max_size=30))
def test_normal_text_stays_as_it_is(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_rows_that_differ_in_any_part_have_different_keys() -> None:
    rows = [
        chat("a b", "c"),
        chat("a", "b c"),
        chat("a", "b", "c", "d"),
        chat("a", "b", system="c"),
        {"text": "a"},
        {"prompt": [said("user", "a")]},
        {"prompt": [said("user", "a")], "tools": [{"type": "function", "function": {"name": "add"}}]},
        pair("q", "a", "b"),
        pair("q", "b", "a"),
        ranking("q", ("a", 1), ("b", 2)),
        ranking("q", ("a", 2), ("b", 1)),
        ranking("q", ("a", 1), ("b", 1)),
        judged("q", "a", True),
        judged("q", "a", False),
        calling({"x": 1, "y": 2}),
        calling({"x": 1, "y": 3}),
        calling({}),
    ]
    assert len({keys_of(row).exact for row in rows}) == len(rows)


def test_order_of_candidates_and_of_arguments_does_not_matter() -> None:
    assert keys_of(ranking("q", ("a", 1), ("b", 2))).exact == keys_of(ranking("q", ("b", 2), ("a", 1))).exact
    assert keys_of(calling({"x": 1, "y": 2})).exact == keys_of(calling({"y": 2, "x": 1})).exact


def test_ids_and_places_do_not_matter() -> None:
    assert keys_of(chat("q", "a", line=1)).exact == keys_of(chat("q", "a", line=5)).exact


def test_prompt_keys_tell_what_answers_can_be_compared() -> None:
    key = keys_of(chat("Q", "a")).prompt
    assert keys_of(chat("q", "other")).prompt == key
    assert keys_of(pair("q", "c", "r")).prompt == keys_of(judged("q", "a", True)).prompt == key
    assert keys_of(chat("q", "a", system="be brief")).prompt != key
    assert keys_of(chat("q", "a", "more", "b")).prompt != key


def test_answer_keys_are_of_the_last_answer() -> None:
    key = keys_of(chat("q", "A")).answer
    assert keys_of(chat("other", "a")).answer == keys_of(chat("q", "x", "more", "a")).answer == key
    assert keys_of(judged("q", "a", True)).answer == keys_of(judged("q", "a", False)).answer == key
    assert keys_of(pair("q", "a", "b")).answer != keys_of(pair("q", "b", "a")).answer
    assert keys_of({"prompt": [said("user", "a")]}).answer == keys_of({"prompt": [said("user", "b")]}).answer


def test_rows_with_the_same_opening_share_a_split() -> None:
    key = keys_of(chat("Q", "a")).opening
    for row in (
        chat("q", "other"),
        chat("q", "a", "more", "b"),
        chat("q", "a", system="be brief"),
        pair("q", "c", "r"),
        ranking("q", ("a", 1), ("b", 2)),
    ):
        assert keys_of(row).opening == key
    assert keys_of(chat("another", "a")).opening != key
    assert keys_of({"text": "A  b"}).opening == keys_of({"text": "a b"}).opening != keys_of({"text": "a"}).opening


def test_without_a_user_the_first_message_that_is_not_the_systems_opens() -> None:
    system, answer = said("system", "s"), said("assistant", "a")
    assert opening_text({"messages": [system, answer]}) == "a"
    assert opening_text({"prompt": [system]}) == ""


def test_texts_to_compare() -> None:
    assert whole_text(chat("q", "a", "more", "b", system="s")) == "q\nmore\na\nb"
    assert whole_text({"text": "t"}) == "t"
    assert whole_text({"prompt": [said("user", "q")]}) == "q"
    assert target_text(chat("q", "a", "more", "b")) == "a\nb"
    assert target_text(pair("q", "good", "bad")) == "good"
    assert target_text(ranking("q", ("b", 1), ("c", 2), ("a", 1))) == "a\nb"
    assert target_text(judged("q", "a", False)) == "a"
    assert target_text({"prompt": [said("user", "q")]}) == ""


def test_numbers_count_as_often_as_they_occur_but_in_any_order() -> None:
    assert number_key("3 apples, 12 pears") == number_key("12 or 3")
    texts = ["", "3", "3 3", "33", "3 12", "31 2", "\u0663"]
    assert len({number_key(text) for text in texts}) == len(texts)


def test_guards_keep_other_numbers_and_labels_apart() -> None:
    assert keys_of(chat("7 apples", "a"), "7 apples").guard != keys_of(chat("8 apples", "a"), "8 apples").guard
    assert keys_of(chat("7 apples", "a")).guard == keys_of(chat("8 apples", "a")).guard
    for counted in ("7 apples", ""):
        assert keys_of(judged("q", "a", True), counted).guard != keys_of(judged("q", "a", False), counted).guard


def test_broken_text_has_keys_too() -> None:
    assert keys_of(chat("\ud800", "a")).exact != keys_of(chat("\ud801", "a")).exact


def test_a_key_falls_into_two_halves() -> None:
    assert split_key(2**64 * 5 + 7) == (5, 7)
    high, low = split_key(keys_of(chat("q", "a")).exact)
    assert high << 64 | low == keys_of(chat("q", "a")).exact
    assert np.array([[high, low]], dtype=np.uint64).tolist() == [[high, low]]


def test_rank_goes_by_the_first_column_then_the_next() -> None:
    assert rank_by(np.array([5, 1, 5, 1]), np.array([2, 9, 1, 8])).tolist() == [3, 1, 2, 0]
    assert rank_by(np.array([2**63 + 1, 1], dtype=np.uint64)).tolist() == [1, 0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 5)), max_size=40), st.randoms())
def test_of_equal_rows_the_lowest_is_kept_whatever_their_order(
    rows: list[tuple[int, int, int]], source: random.Random
) -> None:
    """(upper half, lower half, digest of the content)"""

    def kept(order: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        keys = np.array([row[:2] for row in order], dtype=np.uint64).reshape(-1, 2)
        rank = rank_by(np.array([row[2] for row in order], dtype=np.int64))
        found = kept_of(keys, rank).tolist()
        assert all(found[place] == place for place in found)
        assert all(order[place][:2] == row[:2] for place, row in zip(found, order, strict=True))
        return sorted(order[place] for place in set(found))

    assert kept(rows) == sorted(min(row for row in rows if row[:2] == key) for key in {row[:2] for row in rows})
    assert kept(source.sample(rows, len(rows))) == kept(rows)
