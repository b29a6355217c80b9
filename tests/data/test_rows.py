from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftcli.core.errors import BadData
from ftcli.data.rows import (
    RowType,
    prompt_of,
    read_jsonl,
    read_split,
    reference_of,
    row_type,
    split_file,
    uses_tools,
    write_jsonl,
)

USER = {"role": "user", "content": "Q"}
ANSWER = {"role": "assistant", "content": "A"}
MESSAGES = {"id": "1", "messages": [USER, ANSWER], "meta": {}}
PROMPT = {"id": "2", "prompt": [USER], "meta": {}}
PREFERENCE = {
    "id": "3",
    "prompt": [USER],
    "chosen": [ANSWER],
    "rejected": [{"role": "assistant", "content": "B"}],
    "meta": {},
}
TEXT = {"id": "4", "text": "plain", "meta": {}}
RANKING = {
    "id": "5",
    "prompt": [USER],
    "candidates": [{"content": "B", "rank": 2}, {"content": "A", "rank": 1}, {"content": "C", "rank": 1}],
    "meta": {},
}
UNPAIRED = {"id": "6", "prompt": [USER], "completion": [ANSWER], "label": True, "meta": {}}
CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {
    "id": "7",
    "messages": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "1"},
        ANSWER,
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "meta": {},
}
EVERY = [MESSAGES, PROMPT, PREFERENCE, TEXT, RANKING, UNPAIRED, CALLING]


def write(folder: Path, *lines: str | bytes) -> Path:
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    (folder / "train.jsonl").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("row", "kind", "prompt", "reference"),
    [
        (MESSAGES, RowType.MESSAGES, [USER], "A"),
        (PROMPT, RowType.PROMPT, [USER], None),
        (PREFERENCE, RowType.PREFERENCE, [USER], "A"),
        (RANKING, RowType.RANKING, [USER], "A"),
        (UNPAIRED, RowType.UNPAIRED, [USER], "A"),
        ({**UNPAIRED, "label": False}, RowType.UNPAIRED, [USER], None),
        (CALLING, RowType.MESSAGES, CALLING["messages"][:-1], "A"),
        ({**CALLING, "messages": CALLING["messages"][:2]}, RowType.MESSAGES, [USER], None),
    ],
)
def test_each_row_type_has_its_prompt_and_reference(
    row: dict[str, Any], kind: RowType, prompt: list[Any], reference: str | None
) -> None:
    assert row_type(row) is kind
    assert prompt_of(row) == prompt
    assert reference_of(row) == reference


def test_rows_without_a_known_field_have_no_type() -> None:
    assert row_type(TEXT) is RowType.TEXT
    assert row_type({"chosen": []}) is None
    assert row_type({}) is None


def test_rows_that_offer_or_call_tools_are_known() -> None:
    assert [row["id"] for row in EVERY if uses_tools(row)] == ["7"]
    assert uses_tools({**PROMPT, "tools": []})
    assert uses_tools({**PROMPT, "prompt": CALLING["messages"][:-1]})


@pytest.mark.parametrize("row", EVERY)
def test_a_canonical_row_is_read_as_it_is(tmp_path: Path, row: dict[str, Any]) -> None:
    folder = write(tmp_path, json.dumps(row))
    assert read_split(folder, "train", *RowType) == [row]


def test_the_first_rows_are_enough_with_a_limit(tmp_path: Path) -> None:
    folder = write(tmp_path, *(json.dumps({**PROMPT, "id": str(n)}) for n in range(5)), "no JSON, but not looked at")
    assert [row["id"] for row in read_split(folder, "train", RowType.PROMPT, limit=3)] == ["0", "1", "2"]
    assert read_split(folder, "train", RowType.PROMPT, limit=0) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON: Expecting property name"),
        ("", "no JSON: Expecting value"),
        ("[" * 100_000, "no JSON: "),
        (b'{"text": "\xff"}', "no JSON: 'utf-8' codec"),
        ("[1]", "no known row type, messages or preference needed"),
        ("{}", "no known row type"),
        (json.dumps(TEXT), "a text row, messages or preference needed"),
        (json.dumps({**MESSAGES, "messages": []}), "messages is not a list of messages"),
        (json.dumps({**MESSAGES, "messages": "Q"}), "messages is not a list of messages"),
        (json.dumps({**MESSAGES, "messages": ["Q", "A"]}), "messages is not a list of messages"),
        (
            json.dumps({**MESSAGES, "messages": [USER, {"role": "assistant", "content": None}]}),
            "messages is not a list",
        ),
        (json.dumps({**MESSAGES, "messages": [{"from": "human", "value": "Q"}]}), "messages is not a list of messages"),
        (json.dumps({**MESSAGES, "messages": [ANSWER, USER]}), "the last message of messages is not the assistant's"),
        (json.dumps({**MESSAGES, "id": 1}), "id is not text"),
        (json.dumps({"messages": [USER, ANSWER]}), "id is not text"),
        (json.dumps({**PREFERENCE, "chosen": "A"}), "chosen is not a list of messages"),
        (json.dumps({**PREFERENCE, "rejected": [USER]}), "the last message of rejected is not the assistant's"),
        (json.dumps({**PREFERENCE, "prompt": []}), "prompt is not a list of messages"),
        (json.dumps({**CALLING, "tools": "f"}), "tools or tool_calls are not lists of"),
        (json.dumps({**CALLING, "tools": [{"name": "f"}]}), "tools or tool_calls are not lists of"),
        (
            json.dumps({**CALLING, "messages": [USER, {**ANSWER, "tool_calls": {}}]}),
            "tools or tool_calls are not lists",
        ),
        (json.dumps({**CALLING, "messages": [USER, {**ANSWER, "tool_calls": ["f"]}]}), "tools or tool_calls are not"),
        (
            json.dumps(CALLING).replace('"arguments": "{}"', '"arguments": "{"'),
            "tools or tool_calls are not lists of {type, function: {name, ...}}",
        ),
        (json.dumps(CALLING).replace('"arguments": "{}"', '"arguments": {}'), "tools or tool_calls are not lists of"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(tmp_path: Path, line: str | bytes, message: str) -> None:
    folder = write(tmp_path, json.dumps(MESSAGES), line)
    with pytest.raises(BadData) as caught:
        read_split(folder, "train", RowType.MESSAGES, RowType.PREFERENCE)
    assert caught.value.message.startswith(f"{folder}/train.jsonl:2: {message}")
    assert "ftcli prep" in caught.value.hint


def test_wrong_column_types_of_the_other_row_types(tmp_path: Path) -> None:
    for row, message in (
        ({**TEXT, "text": 1}, "text is not text"),
        ({**PROMPT, "prompt": "Q"}, "prompt is not a list"),
        ({**RANKING, "candidates": [{"content": "A", "rank": 1}]}, "candidates is not a list of two or more"),
        ({**RANKING, "candidates": [{"content": "A", "rank": 1}, {"content": "B"}]}, "candidates is not a list"),
        ({**RANKING, "candidates": [{"content": "A", "rank": 1}, {"content": "B", "rank": True}]}, "candidates is not"),
        ({**RANKING, "candidates": {}}, "candidates is not a list of two or more"),
        ({**UNPAIRED, "label": 1}, "label is neither true nor false"),
        ({**UNPAIRED, "completion": [USER]}, "the last message of completion is not the assistant's"),
        ({**UNPAIRED, "prompt": None}, "prompt is not a list"),
    ):
        with pytest.raises(BadData, match=message):
            read_split(write(tmp_path, json.dumps(row)), "train", *RowType)


def test_a_missing_split_says_what_a_data_folder_holds(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"no test.jsonl or test.parquet") as caught:
        read_split(write(tmp_path), "test", *RowType)
    assert "train, validation and test, as .jsonl or .parquet" in caught.value.hint


def test_a_split_in_both_formats_is_not_chosen_between(tmp_path: Path) -> None:
    folder = write(tmp_path, json.dumps(TEXT))
    assert split_file(folder, "train") == folder / "train.jsonl"
    (folder / "train.parquet").touch()
    with pytest.raises(BadData, match=r"both train.jsonl and train.parquet"):
        read_split(folder, "train", *RowType)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
rows = st.dictionaries(
    st.sampled_from(
        ["id", "messages", "prompt", "chosen", "rejected", "completion", "candidates", "label", "tools", "text", "meta"]
    ),
    st.one_of(json_values, st.lists(st.fixed_dictionaries({"role": json_values, "content": json_values}), max_size=2)),
    max_size=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows)
def test_any_json_object_is_a_row_with_text_in_it_or_bad_data(tmp_path: Path, row: dict[str, Any]) -> None:
    try:
        (found,) = read_split(write(tmp_path, json.dumps(row)), "train", *RowType)
    except BadData:
        return
    if row_type(found) is not RowType.TEXT:
        assert all(isinstance(message["content"], str) for message in prompt_of(found))
        assert isinstance(reference_of(found), str | None)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(), max_size=5))
def test_rows_are_written_one_a_line_and_read_again(tmp_path: Path, texts: list[str]) -> None:
    """Line separators of Unicode (U+2028, U+0085) are no ends of lines in JSONL."""
    path = tmp_path / "x.jsonl"
    written = [{"id": str(number), "text": text, "meta": {}} for number, text in enumerate(texts)]
    assert write_jsonl(path, written) == len(texts)
    assert path.read_bytes().count(b"\n") == len(texts)
    assert list(read_jsonl(path)) == written
    path.rename(tmp_path / "train.jsonl")
    assert read_split(tmp_path, "train", RowType.TEXT) == written
