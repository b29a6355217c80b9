"""The rule pack for Alpaca-like data: each documented class of defects, and what only resembles it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.rules import RULES, apply_rules


def chat(question: str, answer: str = "An ordinary answer.") -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def names(question: str, answer: str = "An ordinary answer.") -> set[str]:
    """The rules that a row is caught by, with what they do."""
    notes = RowNotes()
    try:
        row = apply_rules(chat(question, answer), ["alpaca"], notes)
    except Refused as refused:
        return {"reject " + refused.detail.split(":")[1]}
    assert (row != chat(question, answer)) == bool(notes.changed)
    return {"fix " + name.removeprefix("rule:") for name in notes.changed} | {
        "flag " + name.removeprefix("rule:") for name, _ in notes.flags
    }


NO_INPUT = [
    "<noinput>",
    "noinput",
    "No input",
    "<no input>",
    "No Input.",
    "< noinput >",
    "`<noinput>`",
    "[No input]",
    "(no input needed)",
]


@pytest.mark.parametrize(
    "given_input",
    [*NO_INPUT, "N/A", "n/a.", "<none>", "None", "Not applicable", "Input: <noinput>", "No input required"],
)
def test_an_input_that_says_there_is_none_is_taken_out(given_input: str) -> None:
    notes = RowNotes()
    row = apply_rules(chat(f"Name five companies.\n\n{given_input}"), ["alpaca"], notes)
    assert row["messages"][0]["content"] == "Name five companies."
    assert notes == RowNotes({"rule:noinput"}, [])


@pytest.mark.parametrize(
    "question",
    [
        "Which of these is a fish?\n\nNone of these",
        "What does <noinput> mean?",
        "Name one.\n\nno inputs here",
        "none",
        "Explain n/a",
    ],
)
def test_an_input_that_says_something_stays(question: str) -> None:
    assert names(question) == set()


MERGED = "It depends.\n##\n18. Instruction: Find the noun.\n18. Input:\nThe apple was good.\n18. Output:\nApple"


def test_merged_instructions_are_rejected() -> None:
    assert names("Should I invest?", MERGED) == {"reject merged_instruction"}
    assert names(MERGED) == {"reject merged_question"}
    assert names("Steps?", "1. Instruction: read this.\n2. Input: type it in.") == set()


@pytest.mark.parametrize(
    "answer",
    [
        "<No Output>",
        "No output",
        "N/A",
        "n/a.",
        "<noinput>",
        "[none]",
        "<empty>",
        "nan",
        "...",
        "\u2026",
        "  No Output. ",
    ],
)
def test_answers_that_say_there_is_none_are_rejected(answer: str) -> None:
    assert names("Draw it", answer) == {"reject no_output"}


@pytest.mark.parametrize(
    "answer", ["None", "NaN", "null", "No", "-", "0", "There is no output.", "The input is n/a because it is empty."]
)
def test_short_answers_that_may_be_right_stay(answer: str) -> None:
    assert names("What is it?", answer) == set()


@pytest.mark.parametrize(
    "given_input",
    ["<Picture Attached>", "[Image]", "(image of a cat)", "<image attached>", "[attached picture]", "[Insert image]"],
)
def test_questions_about_a_picture_that_is_not_there_are_rejected(given_input: str) -> None:
    assert names(f"Classify the following shape.\n\n{given_input}", "Triangle") == {"reject attached_image"}


@pytest.mark.parametrize(
    ("question", "rules"),
    [
        ("Describe the painting.\n\nhttps://example.org/a/degas.jpg", {"flag image_link", "flag url_input"}),
        ("What is this? ![](https://example.org/x)", {"flag image_link"}),
        (
            "Summarize the given article in 200 words.\n\nhttps://www.example.org/news/world-51461830",
            {"flag url_input"},
        ),
        ("Given a recent news article, write a headline for it.\n\nwww.example.org/article-1", {"flag url_input"}),
        ("Output the domain of that URL.\n\nhttps://docs.example.org/document", set()),
        ("Summarize: https://example.org is a domain that is reserved for use in documents.", set()),
        ('Create a graphic or logo that visually represents the word "courage".', {"flag image_request"}),
        ("Please draw me a picture of a cat", {"flag image_request"}),
        ("You need to design a suitable logo for a cafe.", {"flag image_request"}),
        ("Create a list of titles for a photo album", set()),
        ("Generate an image caption", set()),
        ("Create an image file with dd", set()),
        ("Write a poem about a painting", set()),
        ("Draw a conclusion from the numbers.", set()),
        ("Summarize the following article.", {"flag missing_input"}),
        ("Can you fix the following Python code?", {"flag missing_input"}),
        ("Summarize the following article.\n\nA cat sat on a mat.", set()),
        ("Edit the following sentence: He go home.", set()),
        ("Define the following word 'cat'.", set()),
    ],
)
def test_questions_for_a_person_to_see_are_flagged(question: str, rules: set[str]) -> None:
    assert names(question) == rules


@pytest.mark.parametrize(
    ("question", "answer", "rules"),
    [
        ("Sort them.", '### Output:\n["a", "b"]', {"flag label"}),
        ("Sort them.", "Output: a, b", {"flag label"}),
        ("Sort them.", "Output devices come last.", set()),
        ("Increase the font size to 12 points.", "The font size has been increased to 12 points.", {"flag pretended"}),
        ("Rewrite in the passive voice: she sent it.", "The letter has been sent by her.", set()),
        ("What happened?", "The letter has been lost in the post.", set()),
    ],
)
def test_answers_for_a_person_to_see_are_flagged(question: str, answer: str, rules: set[str]) -> None:
    assert names(question, answer) == rules


def test_rules_read_every_question_and_only_answers_to_imitate() -> None:
    prompt = [
        {"role": "user", "content": "Name one.\n\nnoinput"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "More\n\nN/A"},
    ]
    pair = {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "B"}],
        "rejected": [{"role": "assistant", "content": "<No Output>"}],
    }
    notes = RowNotes()
    row = apply_rules(pair, ["alpaca"], notes)
    assert [message["content"] for message in row["prompt"]] == ["Name one.", "A", "More"]
    assert pair["prompt"][0]["content"] == "Name one.\n\nnoinput"
    swapped = {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}
    with pytest.raises(Refused, match="rule:no_output: an answer says") as refused:
        apply_rules(swapped, ["alpaca"], RowNotes())
    assert refused.value.reason is Reason.RULE


@given(st.lists(st.sampled_from(["a", "\n\n", "N/A", "none", "<noinput>", "\n", "Input: "]), max_size=12).map("".join))
def test_corrections_are_idempotent_and_no_pack_is_no_rule(question: str) -> None:
    row = chat(f"{question}\n\n<noinput>")
    once = apply_rules(row, ["alpaca"], RowNotes())
    assert len(once["messages"][0]["content"]) < len(row["messages"][0]["content"])
    assert apply_rules(once, ["alpaca"], RowNotes()) is once
    assert apply_rules(row, [], RowNotes()) is row


def test_what_tools_and_systems_say_is_no_question_and_no_answer() -> None:
    row = chat("Call it.\n\nN/A", "Output: 1")
    row["messages"][1:1] = [{"role": "tool", "content": "x\n\nN/A"}, {"role": "assistant", "content": "Yes."}]
    row["messages"].insert(0, {"role": "system", "content": "y\n\nnone"})
    notes = RowNotes()
    fixed = apply_rules(row, ["alpaca"], notes)
    assert [message["content"] for message in fixed["messages"][:3]] == ["y\n\nnone", "Call it.", "x\n\nN/A"]
    assert (notes.changed, [name for name, _ in notes.flags]) == ({"rule:noinput"}, ["rule:label"])


def test_rules_with_and_without_stems_hold_beside_each_other_in_the_order_of_the_table() -> None:
    notes = RowNotes()
    apply_rules(chat("Draw a logo like ![](x) with the following text.", "Output: 1"), ["alpaca"], notes)
    assert [name for name, _ in notes.flags] == [
        "rule:image_link",
        "rule:image_request",
        "rule:missing_input",
        "rule:label",
    ]


def test_raw_text_has_neither_questions_nor_answers() -> None:
    row = {"text": "N/A"}
    assert apply_rules(row, ["alpaca"], RowNotes()) is row


def test_the_table_tells_every_rule_by_its_own_name() -> None:
    for pack in RULES.values():
        assert len({rule.name for rule in pack}) == len(pack)
        for rule in pack:
            assert rule.what
            assert rule.asked or rule.answered
            assert rule.action != "fix" or rule.asked
            assert all(stem == stem.lower() for stem in rule.stems)
