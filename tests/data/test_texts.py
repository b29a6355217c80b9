"""Texts of rows: each row type gives and takes back all of them, and says what asks and what answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.texts import answer_text, imitated, map_texts, prompt_text, texts_of

META = {"file": "f", "line": 1}


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "s"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo", "days": 2}}}
ROWS = {
    "messages": ({"messages": [SYSTEM, user("q"), assistant("a"), user("r"), assistant("b")]}, "q\nr", "a\nb"),
    "prompt": ({"prompt": [SYSTEM, user("q"), assistant("a"), user("r")]}, "q\na\nr", ""),
    "preference": ({"prompt": [user("q")], "chosen": [assistant("c")], "rejected": [assistant("d")]}, "q", "c\nd"),
    "ranking": (
        {"prompt": [user("q")], "candidates": [{"content": "x", "rank": 1}, {"content": "y", "rank": 2}]},
        "q",
        "x\ny",
    ),
    "unpaired": ({"prompt": [user("q")], "completion": [assistant("c")], "label": False}, "q", "c"),
    "text": ({"text": "t"}, "", "t"),
    "tools": (
        {
            "messages": [
                user("q"),
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": "rain"},
                assistant("a"),
            ]
        },
        "q\nrain",
        '{"arguments": {"days": 2, "town": "Oslo"}, "name": "weather"}\na',
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_row_type_says_what_asks_and_what_answers(name: str) -> None:
    row, asked, answered = ROWS[name]
    assert prompt_text(row) == asked
    assert answer_text(row) == answered


@pytest.mark.parametrize("name", ROWS)
def test_every_text_can_be_changed_without_a_change_to_the_row_itself(name: str) -> None:
    row = {**ROWS[name][0], "meta": META}
    before = repr(row)
    changed = map_texts(row, lambda text: text + "!")
    assert texts_of(changed) == [text + "!" for text in texts_of(row)]
    assert repr(row) == before
    assert changed["meta"] is META
    assert map_texts(changed, lambda text: text[:-1]) == row


@given(st.sampled_from(sorted(ROWS)), st.text(max_size=5))
def test_a_row_without_a_change_is_itself(name: str, new: str) -> None:
    row = ROWS[name][0]
    changed = map_texts(row, lambda text: new if text == "q" else text)
    assert (changed is row) == (new == "q" or "q" not in texts_of(row))


def test_ranks_labels_and_calls_survive_a_change_of_texts() -> None:
    assert [item["rank"] for item in map_texts(ROWS["ranking"][0], str.upper)["candidates"]] == [1, 2]
    assert map_texts(ROWS["unpaired"][0], str.upper)["label"] is False
    assert map_texts(ROWS["tools"][0], str.upper)["messages"][1]["tool_calls"] == [CALL]


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("messages", ["a", "b"]),
        ("prompt", []),
        ("preference", ["c"]),
        ("ranking", ["x"]),
        ("unpaired", []),
        ("tools", ["", "a"]),
    ],
)
def test_answers_that_training_makes_less_likely_are_not_imitated(name: str, answers: list[str]) -> None:
    assert imitated(ROWS[name][0]) == answers


def test_all_best_candidates_and_good_completions_are_imitated() -> None:
    tied = {
        "prompt": [user("q")],
        "candidates": [{"content": name, "rank": rank} for name, rank in (("x", 2), ("y", 1), ("z", 1))],
    }
    assert imitated(tied) == ["y", "z"]
    assert imitated({**ROWS["unpaired"][0], "label": True}) == ["c"]
