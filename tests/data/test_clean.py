"""Cleanings: what they change, and above all what they leave alone."""

# ruff: noqa: RUF001 - odd characters are the subject

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.clean import (
    STEPS,
    clean_rows,
    drop_control,
    fix_unicode,
    has_html,
    keeps_html,
    require_text,
    strip_html,
    tidy_space,
)
from ftcli.data.records import Reason, Reject


def chat(question: str, answer: str, system: str | None = None) -> dict:
    start = [] if system is None else [{"role": "system", "content": system}]
    messages = [*start, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "meta": {"file": "f", "line": 1}}


@pytest.mark.parametrize(
    "text", ["fiancé – “déjà vu”", "naïve façade: 50 µm", "Größe ß", "smörgåsbord", "Ελληνικά, привет"]
)
def test_text_that_was_decoded_as_latin1_is_repaired(text: str) -> None:
    broken = text.encode("utf-8").decode("latin-1")
    assert fix_unicode(broken) == text


@pytest.mark.parametrize(
    "text",
    [
        "“curly” ‘quotes’",
        "全角，标点！（好）",
        "ﬁne ligature",
        "&amp; stays",
        "🏳️‍🌈 👩‍👩‍👧",
        "می‌خواهم",
        "क्‍ष",
        "½ × 2 ≤ √3",
        "naïve",
    ],
)
def test_clean_text_is_not_changed(text: str) -> None:
    assert drop_control(fix_unicode(text)) == text


def test_accents_are_composed() -> None:
    assert fix_unicode("e\u0301") == "\u00e9"


def test_control_and_zero_width_characters_go_and_joiners_stay() -> None:
    assert (
        drop_control("\x1b[31mred\x1b[0m\x00 a\u200bb\ufeff c\u200dd\u200ce\u202ef\tg\n")
        == "red ab c\u200dd\u200cef\tg\n"
    )


def test_indentation_of_code_survives_and_surplus_space_goes() -> None:
    text = "\n\ndef f(x):  \r\n    return x\t\n\n\n\n\nf(1)\n \n"
    assert tidy_space(text) == "def f(x):\n    return x\n\n\nf(1)"
    assert tidy_space("  an answer ") == "an answer"
    assert tidy_space("    if x:\n        y") == "    if x:\n        y"


@given(st.text(alphabet="ab \n\t\r<>/pbri`\"'&;\u00e9\u200b\u2028", max_size=60))
def test_each_cleaning_is_idempotent_on_text_without_html(text: str) -> None:
    for name, step in STEPS.items():
        once = step(text)
        if name != "html" or not has_html(once):
            assert step(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "vector<int> and List<String>",
        "if a < b and c > d",
        "git mv <a> <b>",
        "cp <p>",
        "use `<b>x</b>` here",
        "```html\n<p>one</p>\n<p>two</p>\n```",
        'send --html "<h1>Hello</h1>"',
        "x <y@example.org>",
    ],
)
def test_what_only_looks_like_html_is_left_alone(text: str) -> None:
    assert strip_html(text) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One &amp; two</p><p>Three</p>", "One & two\n\nThree"),
        ("first<br>second<br/>third", "first\nsecond\nthird"),
        ("<ul><li>a</li><li>b</li></ul>", "  • a\n  • b"),
        ("<p>Use vector<int> if a < 3</p>", "Use vector<int> if a < 3"),
        ("a <b>bold</b> word\n  - <i>item</i>\n\nplain <T> line", "a bold word\n  - item\n\nplain <T> line"),
        ('see <a\n href="x">this</a>', "see this"),
        ("<p>a</p><script>evil()</script>", "a"),
        ("<pre>\nif x:\n    y\n</pre>", "if x:\n    y"),
        ("Intro\n\n<div>box</div>\n\nOutro", "Intro\n\nbox\n\nOutro"),
        ("Intro <b>x</b>:\n```\n<p>keep\n   this</p>\n```\nend", "Intro x:\n```\n<p>keep\n   this</p>\n```\nend"),
    ],
)
def test_html_becomes_its_text(html: str, text: str) -> None:
    assert strip_html(html).strip("\n") == text


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Write an HTML page.", "<html><body><p>Hi</p></body></html>"),
        ("Bold in Markdown?", "Either ```**x**``` or <b>x</b>."),
        ("Guess the word", 'A program:\n<?php\n$word = "x";\necho "<b>$word</b>";\n?>\n<p>done</p>'),
        ("Fix it", "let x = 1;\nelement = <b>x</b>;\n"),
    ],
)
def test_html_that_is_the_subject_is_kept_and_counted(question: str, answer: str) -> None:
    row = chat(question, answer)
    counts: Counter[str] = Counter()
    assert keeps_html(row)
    assert list(clean_rows([row], ["html"], counts)) == [row]
    assert counts == {"html": 0, "html_kept": 1}


def test_html_in_an_ordinary_answer_goes() -> None:
    counts: Counter[str] = Counter()
    (row,) = clean_rows([chat("What is it?", "<p>A <b>cat</b>.</p>")], ["html"], counts)
    assert row["messages"][1]["content"] == "A cat."
    assert counts == {"html": 1, "html_kept": 0}


def test_rows_changed_are_counted_by_cleaning_and_switched_off_cleanings_do_nothing() -> None:
    rows = [chat("a  ", "caf\u00c3\u00a9"), chat("a", "b"), chat("a\u200b", "b ")]
    counts: Counter[str] = Counter()
    cleaned = list(clean_rows(rows, ["unicode", "control", "whitespace"], counts))
    assert counts == {"unicode": 1, "control": 1, "whitespace": 2, "html_kept": 0}
    assert [message["content"] for message in cleaned[0]["messages"]] == ["a", "café"]
    assert list(clean_rows(rows, [], Counter())) == rows


def test_every_part_of_a_pair_is_cleaned() -> None:
    pair = {
        "prompt": [{"role": "user", "content": "q "}],
        "chosen": [{"role": "assistant", "content": "c "}],
        "rejected": [{"role": "assistant", "content": "r "}],
        "meta": {},
    }
    (row,) = clean_rows([pair], ["whitespace"], Counter())
    assert [row[part][0]["content"] for part in ("prompt", "chosen", "rejected")] == ["q", "c", "r"]


def test_empty_questions_answers_and_texts_are_refused_with_their_reason() -> None:
    meta = {"file": "f", "line": 1}
    text = {"text": " \n", "meta": meta}
    refused = list(require_text([chat(" ", "b"), chat("a", ""), text]))
    assert [item.reason for item in refused if isinstance(item, Reject)] == [
        Reason.EMPTY_PROMPT,
        Reason.EMPTY_ANSWER,
        Reason.EMPTY_PROMPT,
    ]


def test_a_pair_of_equal_answers_is_refused() -> None:
    same = [{"role": "assistant", "content": "x"}]
    pair = {"prompt": [{"role": "user", "content": "q"}], "chosen": same, "rejected": same}
    (item,) = require_text([{**pair, "meta": {"file": "f", "line": 3}}])
    assert isinstance(item, Reject)
    assert (item.reason, item.line) == (Reason.SAME_ANSWERS, 3)


def test_an_empty_system_message_is_dropped() -> None:
    (row,) = require_text([chat("a", "b", system=" ")])
    assert row == chat("a", "b")
