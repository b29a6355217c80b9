"""Gates: what they stop, the searches behind them would not have found."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftcli.data import boilerplate, gate, pii, rules
from ftcli.data.boilerplate import find_boilerplate
from ftcli.data.pii import find
from ftcli.data.re2 import column, holding
from ftcli.data.records import Refused, RowNotes
from ftcli.data.rows import Row
from ftcli.data.rules import apply_rules

PIECES = (
    *(
        "john.smith@gmail.com",
        "AKIAIOSFODNN7ABCDEFG",
        "ghp_" + "a1B2" * 10,
        "github_pat_" + "a1" * 11 + "_" + "b2" * 30,
    ),
    *("sk_live_" + "a1" * 10, "rk_test_" + "b2" * 10, "sk-" + "abc123DEF" * 3, "hf_AbCdEfGhIjKlMnOpQrStUvWxYz1234"),
    *("xoxb-12345-abcde12345", "AIza" + "a1B2c" * 7, "eyJhbGciOiJI.eyJzdWIiOiIx.abcdefghijklmnopqrst"),
    *(
        "hooks.slack.com/services/T0000ABC/B0000ABC/" + "a1B2" * 5,
        "password: hunter2xyz!9",
        "https://me:wOrd9x@host.org",
    ),
    *(
        "api_key = 'a8f5f167f44f4964e6'",
        "PASSWORD is \u0664abcdefg",
        "to\u212aen: abcd1234efgh9",
        "-----BEGIN PRIVATE KEY-----",
    ),
    *("415-867-5309", "+49 30 1234567", "phone: 030 1234567", "0171/1234567", "078-05-1121", "4111 1111 1111 1111"),
    *("DE89 3704 0044 0532 0130 00", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "2001::a:b"),
    *(
        "As an AI language model, I cannot",
        "I am a language model",
        "I was trained by OpenAI",
        "I don't have personal opinions",
    ),
    *(
        "I'm sorry, but I can't assist",
        "I\u2019m unable to help you with that",
        "i apologize, i am not able to comply with",
    ),
    *(
        "As of my last update",
        "my knowledge cutoff",
        "I cannot browse",
        "I don\u2019t have real-time",
        "I hope this helps",
    ),
    *(
        "let me know if you have any questions",
        "feel free to ask",
        "don\u2019t hesitate to reach out",
        "I'd be happy to help!",
    ),
    *(
        "\n\nNo input",
        "\n\n<noinput>",
        "\n\nInput: N/A",
        "1. Instruction: x\n1. Output: y",
        "No Output",
        "n/a",
        "nan",
        "...",
    ),
    *(
        "\u2026",
        "<null>",
        "(empty)",
        "[Attached photo]",
        "[Image attached]",
        "![x](y)",
        "<img src=x>",
        "https://x.org/a.png",
    ),
    *("summarize this article\n\nhttps://x.org/1", "Draw a cartoon", "create a logo for us", "Generate a meme"),
    *(
        "Edit the following sentence.",
        "Output: 5",
        "### Response",
        "## answer",
        "INSTRUCT\u0130ON:",
        "re\u017fponse: x",
    ),
    *("The light has been turned off.", "Your file has been deleted.", "\u0131nput: x", "draw a p\u0131cture"),
    *(
        "the",
        "word",
        "is",
        "5",
        "12",
        "\u0661\u0662",
        "a:b",
        "_",
        "-",
        "\u00e9t\u00e9",
        "\u4f60\u597d",
        "\n",
        "\n\n",
        "'",
        '"',
    ),
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=5).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=3).map("".join),
)


def is_let_through(pattern: str, text: str) -> bool:
    return holding(pattern, column([text]))[0]


@settings(deadline=None)  # the first call loads functions of Arrow
@given(TEXTS)
def test_what_a_gate_stops_holds_nothing_to_find(text: str) -> None:
    if not is_let_through(pii.GATE, text):
        assert find(text) == []
    if not is_let_through(boilerplate.GATE, text):
        assert find_boilerplate(text) == []


@settings(deadline=None)  # the first call loads functions of Arrow
@given(TEXTS, TEXTS)
def test_a_row_that_the_gate_of_a_pack_stops_breaks_no_rule(question: str, answer: str) -> None:
    row: Row = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    if not is_let_through(rules.GATES["alpaca"], f"{question}\n{answer}"):
        notes = RowNotes()
        assert apply_rules(row, ["alpaca"], notes) is row
        assert (notes.flags, notes.changed) == ([], set())


def test_the_pieces_are_found_so_the_gates_are_put_to_the_test() -> None:
    assert sum(bool(find(piece)) for piece in PIECES) >= 20
    assert sum(bool(find_boilerplate(piece)) for piece in PIECES) >= 12
    assert sum(breaks_a_rule(piece) for piece in PIECES) >= 15


def breaks_a_rule(text: str) -> bool:
    notes = RowNotes()
    row: Row = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
    try:
        apply_rules(row, ["alpaca"], notes)
    except Refused:
        return True
    return bool(notes.flags or notes.changed)


def test_a_gate_takes_every_character_for_what_it_is_in_lower_case() -> None:
    """All of Unicode: what Python's lower case makes an ASCII letter or begins with one, RE2 must let through."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) != "Cs"]
    telling = [item for item in characters if any("a" <= low <= "z" for low in item.lower())]
    texts = column(telling)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        passed = holding(gate.one_of([letter]), texts)
        assert [item for item, is_in in zip(telling, passed, strict=True) if letter in item.lower() and not is_in] == []


def test_most_texts_are_stopped() -> None:
    words = [piece for piece in PIECES if piece.isalpha() and piece.isascii() and piece != "nan"] + ["history", "river"]
    generator = random.Random(1)
    texts = column([" ".join(generator.choices(words, k=20)) for _ in range(100)])
    for pattern in (pii.GATE, boilerplate.GATE, rules.GATES["alpaca"]):
        assert not any(holding(pattern, texts))


@pytest.mark.parametrize("words", [["can't"], ["a.b"]])
def test_words_stand_for_themselves_with_either_apostrophe(words: list[str]) -> None:
    pattern = gate.one_of(words)
    assert is_let_through(pattern, f"X{words[0].upper()}X")
    assert is_let_through(pattern, words[0].replace("'", "\u2019"))
    assert not is_let_through(pattern, "cant axb")
