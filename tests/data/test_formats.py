"""Formats: detection, conversion, and what is said about rows that fit none."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from ftcli.core.errors import BadData
from ftcli.data.formats import (
    FORMATS,
    FormatName,
    check_columns,
    detect,
    rename,
    require_columns,
    to_rows,
    unused_columns,
)
from ftcli.data.records import Record, Reject

U, A, S = (lambda text, role=role: {"role": role, "content": text} for role in ("user", "assistant", "system"))


def record(value: dict[str, Any], line: int = 1) -> Record:
    return Record("f.jsonl", line, value)


def convert(value: dict[str, Any], name: Any = None) -> Any:
    name = name or detect([record(value)])
    (item,) = to_rows([record(value)], name)
    return item if isinstance(item, Reject) else {key: part for key, part in item.items() if key != "meta"}


def test_every_format_name_has_its_format() -> None:
    assert set(FORMATS) == set(get_args(FormatName))


@pytest.mark.parametrize(
    ("name", "value", "row"),
    [
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}, {"messages": [U("q"), A("a")]}),
        ("alpaca", {"instruction": "q", "input": "x", "output": "a"}, {"messages": [U("q\n\nx"), A("a")]}),
        ("alpaca", {"instruction": "q", "output": "a", "text": "q a"}, {"messages": [U("q"), A("a")]}),
        (
            "alpaca",
            {"instruction": "q", "output": "a", "system": "s", "history": [["h", "i"]]},
            {"messages": [S("s"), U("h"), A("i"), U("q"), A("a")]},
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "Human", "value": "q"}, {"from": " GPT ", "value": "a"}]},
            {"messages": [U("q"), A("a")]},
        ),
        (
            "sharegpt",
            {
                "system": "s",
                "conversations": [U("q"), A("a"), {"from": "prompter", "value": "r"}, {"from": "bing", "value": "b"}],
            },
            {"messages": [S("s"), U("q"), A("a"), U("r"), A("b")]},
        ),
        ("messages", {"messages": [S("s"), U("q"), A("a")], "prompt": "q"}, {"messages": [S("s"), U("q"), A("a")]}),
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]},
                    A("a"),
                ]
            },
            {"messages": [U("q\nr"), A("a")]},
        ),
        ("prompt_completion", {"prompt": "q", "completion": "a"}, {"messages": [U("q"), A("a")]}),
        (
            "prompt_completion",
            {"prompt": [S("s"), U("q")], "completion": [A("a")]},
            {"messages": [S("s"), U("q"), A("a")]},
        ),
        ("question_answer", {"question": "q", "answer": "a"}, {"messages": [U("q"), A("a")]}),
        ("text", {"text": "t", "url": "u"}, {"text": "t"}),
        ("prompt", {"prompt": "q"}, {"prompt": [U("q")]}),
        ("prompt", {"prompt": [U("q"), A("a"), U("r")]}, {"prompt": [U("q"), A("a"), U("r")]}),
        (
            "preference",
            {"prompt": "q", "chosen": "c", "rejected": "r"},
            {"prompt": [U("q")], "chosen": [A("c")], "rejected": [A("r")]},
        ),
        (
            "preference",
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "c"},
                "rejected": {"from": "gpt", "value": "r"},
            },
            {"prompt": [U("q")], "chosen": [A("c")], "rejected": [A("r")]},
        ),
        (
            "preference",
            {"prompt": "q", "chosen": [U("q"), A("c")], "rejected": [U("q"), A("r")], "messages": [U("q"), A("c")]},
            {"prompt": [U("q")], "chosen": [A("c")], "rejected": [A("r")]},
        ),
        (
            "preference",
            {"chosen": [U("q"), A("a"), U("b"), A("c")], "rejected": [U("q"), A("a"), U("b"), A("r")]},
            {"prompt": [U("q"), A("a"), U("b")], "chosen": [A("c")], "rejected": [A("r")]},
        ),
        (
            "preference",
            {"instruction": "q", "input": "x", "chosen": "c", "rejected": "r"},
            {"prompt": [U("q\n\nx")], "chosen": [A("c")], "rejected": [A("r")]},
        ),
    ],
)
def test_a_format_is_detected_and_converted(name: str, value: dict[str, Any], row: dict[str, Any]) -> None:
    assert detect([record(value)]) == name
    assert convert(value) == row


@pytest.mark.parametrize(
    ("name", "value", "reason", "detail"),
    [
        ("alpaca", {"instruction": 7, "output": "a"}, "type_error", "instruction is a number, text needed"),
        ("alpaca", {"instruction": "q", "output": ["a"]}, "type_error", "output is a list, text needed"),
        ("alpaca", {"instruction": "q"}, "missing_field", "no output; the row has instruction"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["h"]]}, "type_error", "history must be a list"),
        ("question_answer", {"question": "q", "answer": None}, "missing_field", "no answer"),
        ("question_answer", {}, "missing_field", "no columns"),
        ("text", {"text": True}, "type_error", "text is a boolean"),
        ("messages", {"messages": "hello"}, "type_error", "messages is text, a list of messages needed"),
        ("messages", {"messages": ["hello"]}, "type_error", "messages[0] is text, a message needed"),
        ("messages", {"messages": [{"text": "q"}]}, "type_error", "messages[0] has no role; its keys are text"),
        ("messages", {"messages": [U(None), A("a")]}, "type_error", "messages[0]: content is null"),
        ("messages", {"messages": [U([{"type": "image"}]), A("a")]}, "type_error", "content part 'image'"),
        ("messages", {"messages": [{"role": "tool", "content": "x"}]}, "role_unknown", "has the role 'tool'"),
        ("messages", {"messages": [U("q"), {**A("a"), "tool_calls": [1]}]}, "role_unknown", "messages[1] calls tools"),
        ("messages", {"messages": []}, "role_order", "the last message is missing"),
        ("messages", {"messages": [U("q")]}, "role_order", "the last message is the user's"),
        ("messages", {"messages": [A("a")]}, "role_order", "message 1 is the assistant's, the user's was due"),
        ("messages", {"messages": [U("q"), U("r"), A("a")]}, "role_order", "message 2 is the user's"),
        ("messages", {"messages": [U("q"), S("s"), A("a")]}, "role_order", "message 2 is the system's"),
        ("prompt", {"prompt": [U("q"), A("a")]}, "role_order", "it must be the user's"),
        ("preference", {"chosen": "c", "rejected": "r"}, "missing_field", "no prompt; the row has chosen, rejected"),
        (
            "preference",
            {"chosen": [U("q"), A("c"), U("x"), A("d")], "rejected": [U("q"), A("r")]},
            "role_order",
            "differ in more than their last message",
        ),
        ("text", {"text": "bad \ud800 half"}, "encoding", "character 5 of a text is a lone surrogate"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_reason(
    name: str, value: dict[str, Any], reason: str, detail: str
) -> None:
    item = convert(value, name)
    assert isinstance(item, Reject)
    assert item.reason == reason
    assert detail in item.detail


def test_rows_remember_their_file_and_line() -> None:
    rows = list(to_rows([record({"text": "t"}, 7)], "text"))
    assert rows == [{"text": "t", "meta": {"file": "f.jsonl", "line": 7}}]


def test_two_fitting_formats_are_named_and_not_chosen_between() -> None:
    value = {"question": "q", "answer": "a", "instruction": "i", "output": "o"}
    with pytest.raises(BadData, match="alpaca, question_answer alike") as caught:
        detect([record(value)])
    assert "--format" in caught.value.hint


def test_unknown_columns_are_listed() -> None:
    with pytest.raises(BadData, match="these columns: tool, command") as caught:
        detect([record({"tool": "ls", "command": "ls"})])
    assert "--map" in caught.value.hint


def test_a_few_odd_records_do_not_hide_the_format() -> None:
    sample = [record({"question": "q", "answer": "a"})] * 6 + [record({"oops": 1})] * 4
    assert detect(sample) == "question_answer"


def test_map_renames_columns_and_decides_the_format() -> None:
    columns = {"prompt": "description", "completion": "command"}
    raw = record({"tool": "ls", "description": "list files", "command": "ls", "text": "x"})
    renamed = rename(raw, columns)
    assert renamed.value == {"tool": "ls", "text": "x", "prompt": "list files", "completion": "ls"}
    assert detect([renamed], columns) == "prompt_completion"
    assert unused_columns([renamed], "prompt_completion") == ["tool", "text"]


def test_map_of_an_absent_column_lists_the_columns() -> None:
    with pytest.raises(BadData, match="no column reply for map; there are: question, answer"):
        check_columns([record({"question": "q", "answer": "a"})], {"completion": "reply"})


def test_a_forced_format_without_its_columns_lists_what_is_there() -> None:
    with pytest.raises(BadData, match="format alpaca needs column instruction; there are: question, output"):
        require_columns([record({"question": "q", "output": "a"})], "alpaca")
