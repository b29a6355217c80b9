"""Stock phrases of assistants: found in answers, not in what others say."""

from __future__ import annotations

import pytest

from ftcli.data.boilerplate import check_boilerplate, find_boilerplate
from ftcli.data.records import Reason, Refused, RowNotes


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def found(answer: str) -> list[str]:
    return [f"{phrase.name}: {words}" for phrase, words in find_boilerplate(answer)]


@pytest.mark.parametrize(
    ("answer", "phrases"),
    [
        ("As an AI language model, I have no favourite.", ["self: as an ai language model, i"]),
        (
            "As an AI, I don\u2019t have access to real-time data.",
            ["self: as an ai, i", "cutoff: i don't have access to real-time"],
        ),
        ("I am a large language model and cannot see.", ["self: i am a large language model"]),
        ("I was trained by OpenAI.", ["self: i was trained by openai"]),
        ("I do not have personal opinions.", ["self: i do not have personal opinions"]),
        ("I'm sorry, but I can't assist with that.", ["refusal: i can't assist"]),
        ("I apologize, Bob, but I am unable to provide medical advice.", ["refusal: i am unable to provide"]),
        ("Unfortunately I cannot help you with that.", ["refusal: i cannot help you with that"]),
        ("My knowledge cutoff is 2021.", ["cutoff: my knowledge cutoff"]),
        ("As of my last update,\nthere were nine.", ["cutoff: as of my last update"]),
        ("I cannot browse the web.", ["cutoff: i cannot browse"]),
        ("It is 7. I hope this helps!", ["pleasantry: hope this helps"]),
        ("Please don't hesitate to ask.", ["pleasantry: don't hesitate to ask"]),
        (
            "Sure, I'd be happy to help! It is 7. Let me know if you have any other questions.",
            ["pleasantry: i'd be happy to help!"],
        ),
    ],
)
def test_phrases_are_found(answer: str, phrases: list[str]) -> None:
    assert found(answer)[: len(phrases)] == phrases
    assert len(found(answer)) == len(phrases)


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI engineer I would start with the data.",
        "I am an AI researcher at a small company.",
        "GPT-2 works as a language model, which predicts the next word.",
        "He wrote: \"I'm sorry, but I can't assist with that.\"",
        "She said \u201cAs an AI, I must decline\u201d and left.",
        "> As an AI language model, I cannot.\n\nThis is a typical refusal.",
        "```\nprint('As an AI language model, I cannot')\n```",
        "I'm sorry that I can't come to your party.",
        "The paper was made by Google. My dog is fine.",
        "This helps you to ask anything else.",
        "OpenAI has a knowledge base.",
        "",
    ],
)
def test_what_others_say_and_ordinary_words_pass(answer: str) -> None:
    assert found(answer) == []


def test_flags_carry_the_phrase_and_no_words_of_the_row() -> None:
    notes = RowNotes()
    row = {
        "messages": [
            user("As an AI, I ask you"),
            assistant("Sorry, Jane Doe, I cannot provide it. Hope that helps"),
        ]
    }
    assert check_boilerplate(row, "flag", notes) is row
    assert notes == RowNotes(
        set(), [("boilerplate", "refusal: i cannot provide"), ("boilerplate", "pleasantry: hope that helps")]
    )


def test_drop_refuses_what_spoils_an_answer_and_flags_pleasantries() -> None:
    with pytest.raises(Refused, match="self: as an ai, i") as refused:
        check_boilerplate({"messages": [user("q"), assistant("As an AI, I can't say")]}, "drop", RowNotes())
    assert refused.value.reason is Reason.BOILERPLATE
    notes = RowNotes()
    check_boilerplate({"messages": [user("q"), assistant("7. Hope this helps")]}, "drop", notes)
    assert notes.flags == [("boilerplate", "pleasantry: hope this helps")]


SPOILT, FINE = assistant("As an AI, I can't say"), assistant("Seven.")


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ({"prompt": [user("q")], "chosen": [SPOILT], "rejected": [FINE]}, 1),
        ({"prompt": [user("q")], "chosen": [FINE], "rejected": [SPOILT]}, 0),
        ({"prompt": [user("q")], "completion": [SPOILT], "label": True}, 1),
        ({"prompt": [user("q")], "completion": [SPOILT], "label": False}, 0),
        ({"prompt": [user(SPOILT["content"])]}, 0),
        ({"text": SPOILT["content"]}, 0),
        ({"messages": [user("q"), SPOILT, user("r"), FINE]}, 1),
    ],
)
def test_only_answers_to_imitate_count(row: dict, flags: int) -> None:
    notes = RowNotes()
    check_boilerplate(row, "flag", notes)
    assert len(notes.flags) == flags
    assert check_boilerplate(row, "off", RowNotes()) is row
