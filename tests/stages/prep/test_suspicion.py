"""What rows are suspected of before any step looks into them."""

from __future__ import annotations

from ftcli.data.rows import Row
from ftcli.stages.prep.suspicion import Suspicion, suspicions


def row(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_each_row_is_suspected_of_what_it_may_hold() -> None:
    rows = [
        row("Which river is this?", "The Rhine."),
        row("Draw a logo.", "The Rhine."),
        row("Which river is this?", "I'm sorry, but I can't assist with that."),
        row("Which river is this?", "Ask me@river.org."),
        {"text": "Ask me@river.org."},
    ]
    assert list(suspicions(rows, ["alpaca"])) == [
        Suspicion(rules=False, boilerplate=False, pii=False),
        Suspicion(rules=True, boilerplate=False, pii=False),
        Suspicion(rules=False, boilerplate=True, pii=False),
        Suspicion(rules=False, boilerplate=False, pii=True),
        Suspicion(rules=False, boilerplate=False, pii=True),
    ]


def test_without_packs_no_row_is_suspected_of_breaking_a_rule() -> None:
    assert list(suspicions([row("Draw a logo.", "No.")], [])) == [Suspicion(rules=False, boilerplate=False, pii=False)]


def test_rows_with_tool_calls_may_hold_personal_data_in_their_arguments() -> None:
    call = {"type": "function", "function": {"name": "send", "arguments": '{"to": "me@river.org"}'}}
    calls: Row = {
        "messages": [
            {"role": "user", "content": "Send it."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
    }
    assert [item.pii for item in suspicions([calls], [])] == [True]


def test_no_rows_are_suspected_of_nothing() -> None:
    assert list(suspicions([], ["alpaca"])) == []
