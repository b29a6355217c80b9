"""Conversations written as one string."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.transcripts import is_transcript, read_prompt, read_transcript


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("\n\nHuman: hi\n\nAssistant: hello", [user("hi"), assistant("hello")]),
        ("Human: hi\n\nAssistant:hello ", [user("hi"), assistant("hello")]),
        ("\n\nHuman: a\n\nb\n\nAssistant: c\nHuman: d", [user("a\n\nb"), assistant("c\nHuman: d")]),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", [user("a"), user("b"), assistant("c")]),
        ("\n\nHuman: a\n\nAssistant: ", [user("a"), assistant("")]),
    ],
)
def test_a_transcript_is_read_turn_by_turn(text: str, messages: list[dict[str, str]]) -> None:
    assert is_transcript(text)
    assert read_transcript(text) == messages


def test_a_prompt_ends_before_the_empty_answer() -> None:
    assert read_prompt("\n\nHuman: a\n\nAssistant:") == [user("a")]
    assert read_prompt("\n\nHuman: a\n\nAssistant: b\n\nHuman: c") == [user("a"), assistant("b"), user("c")]


@pytest.mark.parametrize(
    "value", ["hi", "Human: hi", "\n\nAssistant: a\n\nHuman: b", "The Human: hi\n\nAssistant: a", None, ["Human:"]]
)
def test_other_values_are_no_transcripts(value: Any) -> None:
    assert not is_transcript(value)


said = st.text(max_size=12).map(str.strip).filter(lambda text: "Human:" not in text and "Assistant:" not in text)


@given(st.lists(st.tuples(said, said), min_size=1, max_size=3))
def test_what_is_written_as_a_transcript_is_read_again(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"\n\nHuman: {ask}\n\nAssistant: {answer}" for ask, answer in pairs)
    assert is_transcript(text)
    assert read_transcript(text) == [message for ask, answer in pairs for message in (user(ask), assistant(answer))]
