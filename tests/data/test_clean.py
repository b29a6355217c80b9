"""Cleanings: what they change, and above all what they leave alone."""

# ruff: noqa: RUF001 - odd characters are the subject

from __future__ import annotations

import ftfy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ftcli.data.clean import FTFY, STEPS, clean_row, drop_control, fix_unicode, require_text, tidy_space
from ftcli.data.html import has_html, strip_html
from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.texts import map_texts, texts_of


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def chat(question: str, answer: str, system: str | None = None) -> dict:
    start = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": [*start, user(question), assistant(answer)], "meta": {"file": "f", "line": 1}}


def cleaned(row: dict, *steps: str) -> tuple[dict, RowNotes]:
    notes = RowNotes()
    return clean_row(row, steps, notes), notes


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
        "10\u00a0000 €",
    ],
)
def test_clean_text_is_not_changed(text: str) -> None:
    assert drop_control(fix_unicode(text)) == text
    row = chat(text, text)
    assert cleaned(row, *STEPS) == (row, RowNotes())


def test_accents_are_composed() -> None:
    assert fix_unicode("e\u0301") == "\u00e9"


ODD = (
    "ab.,! \n\t\x0b\x0c\r\x00\x1b[m\x7f\x80\x85\x99\xa0\xad°é\u0301ÃÂâ€œ”™ØÙØ£à²×²œА"
    "ГўВЂВ.вЂ‚Äì\u200b\u2028\u2029\u206a\ufeff\ufff9\ufffb\ufffc"
)


@given(
    st.lists(st.sampled_from([*ODD, "é".encode().decode("cp1252"), "“é”".encode().decode("latin-1")]), max_size=30).map(
        "".join
    )
)
@example("first\u00c2 \u00c3 ")
@example("a\n\u00c3 b")
@example("Ã\u00a0")
@example("ab ГўВЂВ.c")
def test_text_is_repaired_as_by_ftfy_though_ftfy_is_seldom_asked(text: str) -> None:
    assert fix_unicode(text) == (text if text.isascii() else ftfy.fix_text(text, FTFY))


@pytest.mark.parametrize("start", [0x80, 0x250, 0x2000, 0x2060, 0xD800, 0xF900, 0xFE00, 0xFFF0, 0x1F600, 0xE0000])
def test_no_character_is_left_that_ftfy_replaces(start: int) -> None:
    for code in range(start, start + 0x70):
        text = f"ab{chr(code)}cd"
        assert fix_unicode(text) == ftfy.fix_text(text, FTFY), hex(code)


def test_control_and_zero_width_characters_go_and_joiners_stay() -> None:
    assert (
        drop_control("\x1b[31mred\x1b[0m\x00 a\u200bb\ufeff c\u200dd\u200ce\u202ef\tg\n")
        == "red ab c\u200dd\u200cef\tg\n"
    )


def test_indentation_of_code_survives_and_surplus_space_goes() -> None:
    text = "\n\ndef f(x):  \r\n    return x\t\n\n\n\n\nf(1)\n \n"
    assert tidy_space(text) == "def f(x):\n    return x\n\n\nf(1)"
    assert tidy_space("  an answer ") == "an answer"
    assert tidy_space("one\rtwo\u00a0\n") == "one\ntwo"
    assert tidy_space("    if x:\n        y") == "    if x:\n        y"


@given(st.text(alphabet="ab \n\t\r<>/pbri`\"'&;\u00e9\u200b\u2028\u00a0\u3000", max_size=60))
def test_each_cleaning_is_idempotent_on_text_without_html(text: str) -> None:
    for step in (fix_unicode, drop_control, strip_html, tidy_space):
        once = step(text)
        if step is not strip_html or not has_html(once):
            assert step(once) == once


texts = st.text(alphabet="12. \n\t\r<`\x00\u00e9\u00c3\u00a9\u200b\u00a0", max_size=40)


@given(texts, texts)
def test_a_row_that_looks_clean_at_once_is_one_that_no_cleaning_changes(question: str, answer: str) -> None:
    row = wanted = chat(question, answer)
    for step in (fix_unicode, drop_control, tidy_space):
        wanted = map_texts(wanted, step)
    assert cleaned(row, *STEPS)[0] == wanted


def test_html_in_an_ordinary_answer_goes() -> None:
    row, notes = cleaned(chat("What is it?", "<p>A <b>cat</b>.</p>"), "html")
    assert row["messages"][1]["content"] == "A cat."
    assert notes == RowNotes({"html"}, [])


def test_html_that_is_the_subject_is_kept_and_flagged() -> None:
    row = chat("Write an HTML page.", '<html><body><p title="x">Hi</p></body></html>')
    assert cleaned(row, "html") == (row, RowNotes(set(), [("html_kept", "</p>")]))


def test_what_a_tool_returned_keeps_markup_and_layout_but_no_control_characters() -> None:
    page = "  <p>caf\u00c3\u00a9</p>\u200b  "
    row = {"messages": [user("Fetch"), {"role": "tool", "content": page}, assistant("<p>It is <b>open</b>.</p>")]}
    new, notes = cleaned(row, *STEPS)
    assert texts_of(new) == ["Fetch", "  <p>café</p>  ", "It is open."]
    assert notes == RowNotes({"unicode", "control", "html"}, [])


def test_changes_are_named_and_switched_off_cleanings_do_nothing() -> None:
    row = chat("a  ", "caf\u00c3\u00a9")
    new, notes = cleaned(row, "unicode", "control", "whitespace")
    assert texts_of(new) == ["a", "café"]
    assert notes == RowNotes({"unicode", "whitespace"}, [])
    assert cleaned(row) == (row, RowNotes())
    assert cleaned(chat("a\u200b", "b"), "control") == (chat("a", "b"), RowNotes({"control"}, []))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [user("q ")], "chosen": [assistant("c ")], "rejected": [assistant("r ")]},
        {"prompt": [user("q ")], "candidates": [{"content": "c ", "rank": 2}, {"content": "r ", "rank": 1}]},
        {"prompt": [user("q ")], "completion": [assistant("c ")], "label": True},
        {"text": "t "},
    ],
)
def test_every_part_of_a_row_is_cleaned(row: dict) -> None:
    before = repr(row)
    assert texts_of(cleaned(row, "whitespace")[0]) == [text.strip() for text in texts_of(row)]
    assert repr(row) == before


RANKS = [{"content": "x", "rank": 1}, {"content": "y", "rank": 2}]
CALLS = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat(" ", "b"), Reason.EMPTY_PROMPT),
        (chat("a", "\n"), Reason.EMPTY_ANSWER),
        ({"text": " \n"}, Reason.EMPTY_PROMPT),
        ({"prompt": [user("")]}, Reason.EMPTY_PROMPT),
        ({"prompt": [user("q")], "chosen": [assistant("x")], "rejected": [assistant(" ")]}, Reason.EMPTY_ANSWER),
        ({"prompt": [user("q")], "chosen": [assistant("x")], "rejected": [assistant("x")]}, Reason.SAME_ANSWERS),
        ({"prompt": [user("q")], "completion": [assistant("")], "label": False}, Reason.EMPTY_ANSWER),
        ({"prompt": [user("q")], "candidates": [*RANKS, {"content": "", "rank": 3}]}, Reason.EMPTY_ANSWER),
        ({"prompt": [user("q")], "candidates": [*RANKS, {"content": "x", "rank": 3}]}, Reason.SAME_ANSWERS),
        ({"prompt": [user("q")], "candidates": [RANKS[0], RANKS[0]]}, Reason.SAME_ANSWERS),
    ],
)
def test_empty_and_equal_texts_are_refused_with_their_reason(row: dict, reason: Reason) -> None:
    with pytest.raises(Refused) as refused:
        require_text(row)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    "row",
    [
        chat("a", "b"),
        {"text": "t"},
        {"prompt": [user("q")], "candidates": [*RANKS, {"content": "z", "rank": 2}]},
        {"prompt": [user("q")], "candidates": [*RANKS, {"content": "x", "rank": 1}]},
        {"messages": [user("q"), CALLS, {"role": "tool", "content": ""}, assistant("a")]},
    ],
)
def test_other_rows_pass_as_they_are(row: dict) -> None:
    assert require_text(row) is row


def test_an_empty_system_message_is_dropped() -> None:
    assert require_text(chat("a", "b", system=" ")) == chat("a", "b")
    assert require_text({"prompt": [{"role": "system", "content": ""}, user("q")]}) == {"prompt": [user("q")]}
