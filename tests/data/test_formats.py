"""Conversion of every format, what is refused and why, and what is said about columns."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.core.errors import BadData
from ftcli.data.formats import (
    FIELDS,
    FORMATS,
    FormatName,
    check_columns,
    detect,
    rename,
    require_columns,
    to_row,
    unused_columns,
)
from ftcli.data.records import Record, Refused, RowNotes
from ftcli.data.rows import RowType, row_type

U, A, S = (lambda text, role=role: {"role": role, "content": text} for role in ("user", "assistant", "system"))
HH = "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: {}"
SCHEMA = {
    "name": "add",
    "description": "adds",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
}
TOOL = {"type": "function", "function": SCHEMA}


def call(name: str = "add", arguments: str = '{"a": 1}', **more: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls: dict[str, Any], content: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def answered(content: str, **more: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, **more}


def record(value: dict[str, Any], line: int = 1) -> Record:
    return Record("f.jsonl", line, value)


def convert(value: dict[str, Any], name: Any = None, notes: RowNotes | None = None) -> dict[str, Any]:
    row = to_row(record(value), name or detect([record(value)]), notes or RowNotes())
    return {key: part for key, part in row.items() if key != "meta"}


def test_every_format_name_has_its_format() -> None:
    assert set(FORMATS) == set(get_args(FormatName))


CONVERTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, {"messages": [U("q"), A("a")]}),
    ("alpaca", {"instruction": "q", "input": None, "output": "a"}, {"messages": [U("q"), A("a")]}),
    ("alpaca", {"instruction": "q", "input": "x", "output": "a"}, {"messages": [U("q\n\nx"), A("a")]}),
    ("alpaca", {"instruction": "q", "output": "a", "text": "q a"}, {"messages": [U("q"), A("a")]}),
    ("alpaca", {"instruction": "q", "output": "a", "label": "1"}, {"messages": [U("q"), A("a")]}),
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
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "1+1?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1, "b": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "Two."},
            ],
            "tools": json.dumps([SCHEMA]),
        },
        {
            "messages": [U("1+1?"), calling(call(arguments='{"a": 1, "b": 1}')), answered("2"), A("Two.")],
            "tools": [TOOL],
        },
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "Function-Call", "value": '[{"name": "f"}, {"name": "g", "arguments": "{}"}]'},
            ],
            "tools": "[]",
        },
        {"messages": [U("q"), calling(call("f", "{}"), call("g", "{}"))]},
    ),
    (  # a table that holds both kinds of messages
        "sharegpt",
        {"conversations": [{"from": "human", "value": "q", "role": None, "content": None}, {"from": None, **A("a")}]},
        {"messages": [U("q"), A("a")]},
    ),
    ("messages", {"messages": [S("s"), U("q"), A("a")], "prompt": "q"}, {"messages": [S("s"), U("q"), A("a")]}),
    ("messages", {"messages": [U("q"), A("a")], "label": "maths"}, {"messages": [U("q"), A("a")]}),
    (
        "messages",
        {"messages": [{"role": "developer", "content": "s"}, U("q"), A("a")]},
        {"messages": [S("s"), U("q"), A("a")]},
    ),
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
    (
        "messages",
        {
            "messages": [
                U("q"),
                {"role": "assistant", "content": None, "tool_calls": [call(id="c1"), call(arguments="", id="c2")]},
                {"role": "tool", "content": "2", "tool_call_id": "c1"},
                {"role": "tool", "content": [{"type": "text", "text": "0"}], "tool_call_id": "c2"},
                A("a"),
            ],
            "tools": [TOOL],
        },
        {
            "messages": [
                U("q"),
                calling(call(id="c1"), call(arguments="{}", id="c2")),
                answered("2", tool_call_id="c1"),
                answered("0", tool_call_id="c2"),
                A("a"),
            ],
            "tools": [TOOL],
        },
    ),
    (  # OpenAI's earlier way
        "messages",
        {
            "messages": [
                U("q"),
                {
                    "role": "assistant",
                    "content": "Let me see.",
                    "function_call": {"name": "add", "arguments": '{"a": 1}'},
                },
                {"role": "function", "name": "add", "content": "2"},
                A("a"),
            ],
            "functions": [SCHEMA],
        },
        {
            "messages": [U("q"), calling(call(), content="Let me see."), answered("2", name="add"), A("a")],
            "tools": [TOOL],
        },
    ),
    ("prompt_completion", {"prompt": "q", "completion": "a"}, {"messages": [U("q"), A("a")]}),
    ("prompt_completion", {"prompt": "q", "completion": "a", "label": "good"}, {"messages": [U("q"), A("a")]}),
    (
        "prompt_completion",
        {"prompt": [S("s"), U("q")], "completion": [A("a")]},
        {"messages": [S("s"), U("q"), A("a")]},
    ),
    (
        "prompt_completion",
        {"prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:", "completion": "b"},
        {"messages": [U("q"), A("a"), U("r"), A("b")]},
    ),
    ("question_answer", {"question": "q", "answer": "a"}, {"messages": [U("q"), A("a")]}),
    ("text", {"text": "t", "url": "u"}, {"text": "t"}),
    ("prompt", {"prompt": "q"}, {"prompt": [U("q")]}),
    ("prompt", {"prompt": [U("q"), A("a"), U("r")]}, {"prompt": [U("q"), A("a"), U("r")]}),
    (
        "prompt",
        {"prompt": [U("q"), calling(call()), answered("2")], "tools": [TOOL]},
        {"prompt": [U("q"), calling(call()), answered("2")], "tools": [TOOL]},
    ),
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
        {"chosen": [U("q"), A("a"), U("b"), A("c")], "rejected": [U("q"), A("a"), U("b"), A("r")], "system": "s"},
        {"prompt": [S("s"), U("q"), A("a"), U("b")], "chosen": [A("c")], "rejected": [A("r")]},
    ),
    (  # completions of several turns begin after the prompt
        "preference",
        {"prompt": [U("q")], "chosen": [A("a"), U("b"), A("c")], "rejected": [A("a"), U("b"), A("r")]},
        {"prompt": [U("q"), A("a"), U("b")], "chosen": [A("c")], "rejected": [A("r")]},
    ),
    (
        "preference",
        {"instruction": "q", "input": "x", "chosen": "c", "rejected": "r"},
        {"prompt": [U("q\n\nx")], "chosen": [A("c")], "rejected": [A("r")]},
    ),
    (
        "preference",
        {"chosen": HH.format("c"), "rejected": HH.format("x\n\ny")},
        {"prompt": [U("q"), A("a"), U("r")], "chosen": [A("c")], "rejected": [A("x\n\ny")]},
    ),
    (
        "preference",
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " c", "rejected": " r"},
        {"prompt": [U("q")], "chosen": [A(" c")], "rejected": [A(" r")]},
    ),
    (  # an answer may quote a transcript
        "preference",
        {"prompt": "q", "chosen": HH.format("c"), "rejected": HH.format("d")},
        {"prompt": [U("q")], "chosen": [A(HH.format("c"))], "rejected": [A(HH.format("d"))]},
    ),
    (  # left for cleaning to refuse
        "preference",
        {"prompt": "q", "chosen": "c", "rejected": "c"},
        {"prompt": [U("q")], "chosen": [A("c")], "rejected": [A("c")]},
    ),
    (
        "ranking",
        {"prompt": "q", "candidates": [{"text": "b", "rank": 3}, {"text": "a", "rank": 1}, {"text": "c", "rank": 3}]},
        {
            "prompt": [U("q")],
            "candidates": [{"content": "b", "rank": 2}, {"content": "a", "rank": 1}, {"content": "c", "rank": 2}],
        },
    ),
    (
        "ranking",
        {
            "instruction": "q",
            "input": "x",
            "responses": [{"content": "b", "score": -1.5}, {"content": "a", "score": 2}],
        },
        {"prompt": [U("q\n\nx")], "candidates": [{"content": "b", "rank": 2}, {"content": "a", "rank": 1}]},
    ),
    (
        "ranking",
        {"conversations": [U("q")], "completions": ["b", "a"], "scores": [0.1, 0.9]},
        {"prompt": [U("q")], "candidates": [{"content": "b", "rank": 2}, {"content": "a", "rank": 1}]},
    ),
    (
        "ranking",
        {"question": "q", "candidates": ["a", "b"], "ranks": [0, 0]},
        {"prompt": [U("q")], "candidates": [{"content": "a", "rank": 1}, {"content": "b", "rank": 1}]},
    ),
    (
        "unpaired",
        {"prompt": "q", "completion": "a", "label": True},
        {"prompt": [U("q")], "completion": [A("a")], "label": True},
    ),
    (
        "unpaired",
        {"prompt": "q", "completion": "a", "label": " False "},
        {"prompt": [U("q")], "completion": [A("a")], "label": False},
    ),
    (
        "unpaired",
        {"prompt": [U("q")], "completion": [A("a")], "label": 0},
        {"prompt": [U("q")], "completion": [A("a")], "label": False},
    ),
    (
        "unpaired",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": True},
        {"prompt": [U("q")], "completion": [A("a")], "label": True},
    ),
    (
        "unpaired",
        {"messages": [S("s"), U("q"), A("a")], "label": "1"},
        {"prompt": [S("s"), U("q")], "completion": [A("a")], "label": True},
    ),
    (
        "unpaired",
        {"instruction": "q", "input": "x", "output": "a", "kto_tag": False},
        {"prompt": [U("q\n\nx")], "completion": [A("a")], "label": False},
    ),
]


@pytest.mark.parametrize(("name", "value", "row"), CONVERTED)
def test_a_format_is_detected_and_converted(name: str, value: dict[str, Any], row: dict[str, Any]) -> None:
    before = json.dumps(value)
    assert detect([record(value)]) == name
    assert convert(value) == row
    assert row_type(row) is FORMATS[name].row_type
    assert json.dumps(value) == before, "the record is not changed"


NO_RANK = [{"text": "a", "rank": 1}, {"text": "b"}]
MIXED = [{"text": "a", "rank": 1}, {"text": "b", "score": 1}]
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("alpaca", {"instruction": True, "output": "a"}, "type_error", "instruction is a boolean, text needed"),
    ("alpaca", {"instruction": "q", "output": ["a"]}, "type_error", "output is a list, text needed"),
    (
        "alpaca",
        {"instruction": "q", "output": 1e300},
        "type_error",
        "output is the number 1e+300, text needed: write it in",
    ),
    ("alpaca", {"instruction": "q", "output": float("inf")}, "type_error", "output is the number inf"),
    ("alpaca", {"instruction": "q"}, "missing_field", "no output; the row has instruction"),
    ("alpaca", {"instruction": "q", "output": "a", "history": [["h"]]}, "type_error", "history must be a list"),
    ("question_answer", {"question": "q", "answer": None}, "missing_field", "no answer"),
    ("question_answer", {}, "missing_field", "no columns"),
    ("text", {"text": True}, "type_error", "text is a boolean"),
    ("messages", {"messages": "hello"}, "type_error", "messages is text, a list of messages needed"),
    ("messages", {"messages": ["hello"]}, "type_error", "messages[0] is text, a message needed"),
    ("messages", {"messages": [{"text": "q"}]}, "type_error", "messages[0] has no role; its keys are text"),
    ("messages", {"messages": [{}]}, "type_error", "messages[0] has no role; its keys are none"),
    ("messages", {"messages": [U(None), A("a")]}, "type_error", "messages[0]: content is null"),
    ("messages", {"messages": [U([{"type": "image"}]), A("a")]}, "type_error", "content part 'image'"),
    ("messages", {"messages": [U(["q"]), A("a")]}, "type_error", "content part 'text', only text is read"),
    (
        "messages",
        {"messages": [{"role": "narrator", "content": "x"}]},
        "role_unknown",
        "messages[0] has the role 'narrator'; known",
    ),
    ("messages", {"messages": []}, "role_order", "the last message is missing"),
    ("messages", {"messages": [U("q")]}, "role_order", "the last message is the user's, it must be the assistant's"),
    ("messages", {"messages": [A("a")]}, "role_order", "message 1 is the assistant's, the user's was due"),
    (
        "messages",
        {"messages": [U("q"), U("r"), A("a")]},
        "role_order",
        "message 2 is the user's, the assistant's was due",
    ),
    (
        "messages",
        {"messages": [U("q"), A("r"), A("a")]},
        "role_order",
        "message 3 is the assistant's, the user's was due",
    ),
    ("messages", {"messages": [U("q"), S("s"), A("a")]}, "role_order", "message 2 is the system's"),
    (
        "messages",
        {"messages": [S("s"), S("t"), U("q"), A("a")]},
        "role_order",
        "message 2 is the system's, the user's was",
    ),
    (
        "messages",
        {"messages": [U("q"), answered("x"), A("a")]},
        "role_order",
        "message 2 is the tool's, the assistant's",
    ),
    (
        "messages",
        {"messages": [U("q"), A("a"), answered("x"), A("a")]},
        "role_order",
        "message 3 is the tool's, the user's",
    ),
    (
        "messages",
        {"messages": [U("q"), calling(call()), A("a")]},
        "role_order",
        "message 3 is the assistant's, the tool's",
    ),
    (
        "messages",
        {"messages": [U("q"), calling(call()), answered("2"), U("r"), A("a")]},
        "role_order",
        "message 4 is the user's, the assistant's or the tool's was due",
    ),
    (
        "messages",
        {"messages": [U("q"), calling(call()), answered("2")]},
        "role_order",
        "the last message is the tool's",
    ),
    (
        "messages",
        {"messages": [{**U("q"), "tool_calls": [call()]}, A("a")]},
        "role_order",
        "messages[0] calls a tool, but is",
    ),
    ("messages", {"messages": [U("q"), calling(1)]}, "type_error", "messages[1]: tool_calls[0] has no function name"),
    (
        "messages",
        {"messages": [U("q"), {**A("a"), "tool_calls": 7}]},
        "type_error",
        "tool_calls is a number, calls needed",
    ),
    (
        "messages",
        {"messages": [U("q"), calling(call(arguments="{"))]},
        "type_error",
        "tool_calls[0].arguments is no JSON: ",
    ),
    ("messages", {"messages": [U("q"), calling(call(arguments="[1]"))]}, "type_error", "arguments is no JSON object"),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "add(1)"}]},
        "type_error",
        "conversations[1] is no JSON: ",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "[]"}]},
        "type_error",
        "conversations[1] is a list, calls needed",
    ),
    ("sharegpt", {"conversations": [U("q"), A("a")], "tools": "[{"}, "type_error", "tools is no JSON: "),
    (
        "sharegpt",
        {"conversations": [U("q"), A("a")], "tools": {"a": 1}},
        "type_error",
        "tools is an object, a list of tools",
    ),
    ("sharegpt", {"conversations": [U("q"), A("a")], "tools": [{}]}, "type_error", "tools[0] has no function name"),
    ("prompt", {"prompt": [U("q"), A("a")]}, "role_order", "it must be the user's or the tool's"),
    ("preference", {"chosen": "c", "rejected": "r"}, "missing_field", "no prompt; the row has chosen, rejected"),
    (
        "preference",
        {"chosen": [U("q"), A("c"), U("x"), A("d")], "rejected": [U("q"), A("r")]},
        "role_order",
        "differ in more than their last message",
    ),
    (
        "preference",
        {"chosen": HH.format("c\n\nHuman: s\n\nAssistant: d"), "rejected": HH.format("r")},
        "role_order",
        "differ in more than their last message",
    ),
    (
        "preference",
        {"prompt": [U("q"), calling(call()), answered("2")], "chosen": "c", "rejected": "r"},
        "role_unknown",
        "message 2 calls tools; preference rows know system, user and assistant texts only",
    ),
    ("ranking", {"prompt": "q"}, "missing_field", "no candidates"),
    ("ranking", {"candidates": ["a", "b"]}, "missing_field", "no prompt"),
    ("ranking", {"prompt": "q", "candidates": "a"}, "type_error", "candidates is text, a list of answers needed"),
    ("ranking", {"prompt": "q", "candidates": ["a"]}, "type_error", "candidates: 1 answer, at least 2 needed"),
    ("ranking", {"prompt": "q", "candidates": []}, "type_error", "candidates: no answer, at least 2 needed"),
    ("ranking", {"prompt": "q", "candidates": NO_RANK}, "missing_field", "candidates[1] has no rank or score"),
    ("ranking", {"prompt": "q", "candidates": MIXED}, "type_error", "some answers have a rank, others a score"),
    (
        "ranking",
        {"prompt": "q", "candidates": ["a", {"text": "b", "rank": 1}]},
        "type_error",
        "some answers are objects",
    ),
    (
        "ranking",
        {"prompt": "q", "candidates": [{"rank": 1}, {"rank": 2}]},
        "missing_field",
        "candidates[0] has no text",
    ),
    (
        "ranking",
        {"prompt": "q", "candidates": [{"text": "a", "rank": "1"}, {"text": "b", "rank": 2}]},
        "type_error",
        "candidates: rank is '1', a number needed",
    ),
    (
        "ranking",
        {"prompt": "q", "candidates": [{"text": "a", "score": float("nan")}, {"text": "b", "score": 2}]},
        "type_error",
        "candidates: score is nan, a number needed",
    ),
    (
        "ranking",
        {"prompt": "q", "responses": ["a", "b"], "scores": [1]},
        "type_error",
        "scores is 1 long, a list of 2 needed",
    ),
    (
        "ranking",
        {"prompt": "q", "responses": ["a", "b"], "ranks": 1},
        "type_error",
        "ranks is a number, a list of 2 needed",
    ),
    (
        "ranking",
        {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
        "type_error",
        "labels beside the texts",
    ),
    (
        "ranking",
        {"prompt": [U("q"), calling(call()), answered("2")], "candidates": ["a", "b"]},
        "role_unknown",
        "message 2 calls tools; ranking rows know",
    ),
    ("unpaired", {"prompt": "q", "completion": "a"}, "missing_field", "no label; the row has prompt, completion"),
    (
        "unpaired",
        {"prompt": "q", "completion": "a", "label": "maybe"},
        "type_error",
        "label is 'maybe', true or false needed",
    ),
    ("unpaired", {"prompt": "q", "completion": "a", "label": 2}, "type_error", "label is 2, true or false needed"),
    (
        "unpaired",
        {"prompt": "q", "completion": "a", "label": [1]},
        "type_error",
        "label is a list, true or false needed",
    ),
    (
        "unpaired",
        {"messages": [U("q"), calling(call()), answered("2"), A("a")], "label": True},
        "role_unknown",
        "message 2 calls tools; unpaired rows know",
    ),
    ("text", {"text": "bad \ud800 half"}, "encoding", "character 5 of a text is a lone surrogate"),
    (
        "messages",
        {"messages": [U("q"), calling(call("\udc80"))]},
        "encoding",
        "character 1 of a text is a lone surrogate",
    ),
    (
        "messages",
        {"messages": [U("q"), A("a")], "tools": [{"name": "f", "default": 2**70}]},
        "type_error",
        "the row cannot be written as JSON: Integer exceeds 64-bit range",
    ),
    ("mixed", {"tool": "ls"}, "missing_field", "fits no format; the row has tool"),
    (
        "mixed",
        {"instruction": "q", "output": "a", "question": "q", "answer": "a"},
        "missing_field",
        "fits the formats alpaca, question_answer alike",
    ),
]


@pytest.mark.parametrize(("name", "value", "reason", "detail"), REFUSED)
def test_a_row_that_does_not_fit_is_refused_with_reason(
    name: str, value: dict[str, Any], reason: str, detail: str
) -> None:
    with pytest.raises(Refused) as caught:
        convert(value, name)
    assert detail in caught.value.detail
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (-3, "-3"), (10**30, "1" + "0" * 30), (7.5, "7.5"), (7.0, "7.0"), (0.1, "0.1"), ("007", "007")],
)
def test_numbers_become_the_text_they_were_written_as(value: Any, text: str) -> None:
    notes = RowNotes()
    row = convert({"question": "q", "answer": value}, notes=notes)
    assert row == {"messages": [U("q"), A(text)]}
    assert notes.changed == (set() if isinstance(value, str) else {"number_as_text"})


def test_texts_in_an_order_are_ranked_by_it_and_that_is_noted() -> None:
    notes = RowNotes()
    row = convert({"prompt": "q", "candidates": ["a", "b", 3]}, notes=notes)
    assert [item["rank"] for item in row["candidates"]] == [1, 2, 3]
    assert notes.changed == {"ranked_by_position", "number_as_text"}


def test_tools_may_be_texts_or_absent() -> None:
    chat = {"conversations": [U("q"), A("a")]}
    for none in (None, "", " ", "[]", "null", []):
        assert convert({**chat, "tools": none}) == {"messages": [U("q"), A("a")]}
    assert convert({**chat, "tools": [json.dumps(SCHEMA), TOOL]})["tools"] == [TOOL, TOOL]


@pytest.mark.parametrize(
    ("more", "changed"),
    [
        ({"reasoning_content": "hm"}, {"message_keys_dropped"}),
        ({"weight": 0}, {"message_keys_dropped"}),
        ({"refusal": None}, set()),
    ],
)
def test_what_a_message_says_beside_its_text_is_not_dropped_in_silence(more: dict[str, Any], changed: set[str]) -> None:
    notes = RowNotes()
    assert convert({"messages": [U("q"), {**A("a"), **more}]}, notes=notes) == {"messages": [U("q"), A("a")]}
    assert notes.changed == changed


def test_rows_remember_their_file_and_line_and_the_columns_to_keep() -> None:
    value = {"text": "t", "user": 7, "topic": "x", "tags": ["b", 1], "none": None, "other": 1}
    row = to_row(record(value, 7), "text", RowNotes(), ("user", "topic", "tags", "none", "absent"))
    assert row == {"text": "t", "meta": {"user": "7", "topic": "x", "tags": '["b", 1]', "file": "f.jsonl", "line": 7}}


@pytest.mark.parametrize("meta", [{"file": "old.csv", "line": 3, "source": "web"}, {"file": "old.csv", "line": 3}])
def test_a_canonical_row_keeps_its_id_and_its_origin(meta: dict[str, Any]) -> None:
    row = {"id": "x1", "messages": [U("q"), A("a")], "meta": meta}
    assert to_row(record(row, 9), "messages", RowNotes()) == row


def test_a_canonical_row_without_origin_gets_one_and_keeps_the_rest() -> None:
    row = {"id": "x1", "text": "t", "meta": {"prompt_id": "p", "topic": "x"}}
    found = to_row(record(row, 9), "text", RowNotes(), ("topic",))
    assert found == {**row, "meta": {"prompt_id": "p", "topic": "x", "file": "f.jsonl", "line": 9}}
    for own in ({}, {"file": "old.csv"}, {"file": "old.csv", "line": "3"}, {"file": 7, "line": 3}):
        odd = {"id": "x1", "text": "t", "meta": own}
        assert to_row(record(odd, 9), "text", RowNotes()) == {**odd, "meta": {"file": "f.jsonl", "line": 9}}


def test_meta_of_others_is_not_ours() -> None:
    assert to_row(record({"text": "t", "meta": {"set": "pile"}}), "text", RowNotes())["meta"] == {
        "file": "f.jsonl",
        "line": 1,
    }


def test_mixed_converts_each_row_by_its_own_columns_and_holds_to_one_type() -> None:
    pair = {"prompt": "q", "chosen": "c", "rejected": "r"}
    for value in ({"question": "q", "answer": "a"}, {"conversations": [U("q"), A("a")]}):
        row = to_row(record(value), "mixed", RowNotes(), kind=RowType.MESSAGES)
        assert row["messages"] == [U("q"), A("a")]
    with pytest.raises(Refused, match="a preference row among messages rows") as caught:
        to_row(record(pair), "mixed", RowNotes(), kind=RowType.MESSAGES)
    assert caught.value.reason == "type_error"
    assert "chosen" in to_row(record(pair), "mixed", RowNotes())


def test_map_renames_columns_and_decides_the_format() -> None:
    columns = {"prompt": "description", "completion": "command"}
    raw = record({"tool": "ls", "description": "list files", "command": "ls", "text": "x"})
    renamed = rename(raw, columns)
    assert renamed.value == {"tool": "ls", "text": "x", "prompt": "list files", "completion": "ls"}
    assert detect([renamed], columns) == "prompt_completion"
    assert unused_columns([renamed], "prompt_completion") == ["tool", "text"]
    assert unused_columns([renamed], "mixed") == ["tool"]
    assert rename(raw, {}) is raw


def test_map_of_an_absent_column_lists_the_columns() -> None:
    with pytest.raises(BadData, match="no column reply for map; there are: question, answer"):
        check_columns([record({"question": "q", "answer": "a"})], {"completion": "reply"})


def test_columns_to_keep_must_be_there_and_not_be_ours() -> None:
    sample = [record({"text": "t", "user": "u"}), record({"id": "1", "text": "t", "meta": {"topic": "x"}})]
    check_columns(sample, {}, ("user", "topic"))
    with pytest.raises(BadData, match="no column usr to group or stratify by; there are: text, user, id, meta"):
        check_columns(sample, {}, ("usr",))
    with pytest.raises(BadData, match="column line cannot be kept, since meta has a line of its own"):
        check_columns(sample, {}, ("line",))


def test_a_forced_format_without_its_columns_lists_what_is_there() -> None:
    sample = [record({"question": "q", "output": "a"})]
    with pytest.raises(BadData, match="format alpaca needs column instruction; there are: question, output") as caught:
        require_columns(sample, "alpaca")
    assert caught.value.hint == "choose another format, or --map '{instruction: COLUMN}'"
    require_columns([*sample, record({"instruction": "q", "output": "a"})], "alpaca")
    require_columns(sample, "mixed")
    with pytest.raises(BadData, match="format text needs column text; there are: none"):
        require_columns([record({})], "text")
    with pytest.raises(BadData, match="format question_answer needs column answer; there are: question, answer"):
        require_columns([record({"question": "q", "answer": None}), record({"answer": "a"})], "question_answer")


def test_map_may_name_every_column_that_a_format_reads() -> None:
    assert {"prompt", "chosen", "candidates", "scores", "label", "kto_tag", "tools", "text"} <= set(FIELDS)


words = st.text(min_size=1, max_size=8)
spoken = st.lists(st.tuples(words, words), min_size=1, max_size=3).map(
    lambda pairs: [message for ask, answer in pairs for message in (U(ask), A(answer))]
)
prompts = spoken.map(lambda messages: messages[:-1])
arguments = st.dictionaries(words, st.one_of(st.integers(-9, 9), words, st.none()), max_size=2)
tool_uses = st.builds(
    lambda asked, given, results, said: [
        U(asked),
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": given}}]},
        *({"role": "tool", "content": text, "name": "f"} for text in results),
        A(said),
    ],
    words,
    arguments,
    st.lists(words, min_size=1, max_size=2),
    words,
)
raw_rows = st.one_of(
    st.builds(lambda q, i, a: {"instruction": q, "input": i, "output": a}, words, words, words),
    st.builds(lambda m: {"messages": m}, spoken),
    st.builds(lambda m: {"conversations": m, "tools": [SCHEMA]}, tool_uses),
    st.builds(lambda m: {"prompt": m}, prompts),
    st.builds(lambda p, a, b: {"prompt": p, "chosen": a, "rejected": b}, prompts, words, words),
    st.builds(
        lambda p, items: {"prompt": p, "candidates": [{"text": text, "score": score} for text, score in items]},
        words,
        st.lists(st.tuples(words, st.floats(-5, 5)), min_size=2, max_size=4),
    ),
    st.builds(lambda p, a, good: {"prompt": p, "completion": a, "label": good}, prompts, words, st.booleans()),
    st.builds(lambda t: {"text": t}, words),
)


@given(raw_rows, st.booleans())
def test_converting_twice_is_converting_once(value: dict[str, Any], finished: bool) -> None:
    """``finished`` rows have got an id since, as prep gives them."""
    once = to_row(record(value, 3), "mixed", RowNotes())
    once = {"id": "x", **once} if finished else once
    notes = RowNotes()
    twice = to_row(Record("g.jsonl" if finished else "f.jsonl", 9 if finished else 3, once), "mixed", notes)
    assert twice == once
    assert not notes.changed
    kind = row_type(once)
    assert kind is not None
    assert detect([record(once)]) == {RowType.MESSAGES: "messages"}.get(kind, str(kind))
