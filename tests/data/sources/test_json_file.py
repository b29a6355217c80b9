"""JSON files of any layout give the rows that `json.loads` gives, wherever the window cuts them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.records import Record, Reject
from ftcli.data.sources.json_file import Layout, Shape, find_layout, read_json
from ftcli.data.sources.json_row import parse_row
from ftcli.data.sources.json_window import CutOff, Window, keys
from ftcli.data.sources.raw_file import RawFile

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
ROWS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), max_size=6)


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, so that every value is cut somewhere."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.size)


def raw_file(tmp_path: Path, content: bytes | str, name: str = "x.json") -> RawFile:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return RawFile(path, name)


def rows_of(file: RawFile) -> list[Any]:
    return [item.value if isinstance(item, Record) else item for item in read_json(file)]


@given(ROWS, st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 9))
def test_a_window_of_any_size_finds_the_values_of_an_array(
    rows: list[Any], indent: int | None, ascii_only: bool, size: int
) -> None:
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    window = Window(Trickle(data, size), "utf-8")
    assert window.skip("[")
    found = []
    while window.peek(commas=True) != "]":
        found.append(json.loads(window.value()))
    assert found == rows
    assert window.skip("]")
    assert window.peek() == ""


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), st.integers(1, 9))
def test_the_keys_of_an_object_are_found_with_their_values(value: dict[str, Any], size: int) -> None:
    window = Window(Trickle(json.dumps(value, indent=1).encode(), size), "utf-8")
    assert {key: json.loads(window.value()) for key in keys(window)} == value


@pytest.mark.parametrize(
    "text", ["{", '{"a"', '{"a":', '{"a": 1', '{"a": 1,', '{"a": tru', '{"a": "\\u12', '{"a": [1', '{"a": -']
)
def test_an_object_cut_anywhere_is_cut_off_and_not_broken(text: str) -> None:
    with pytest.raises(CutOff):
        Window(io.BytesIO(text.encode()), "utf-8").value()


@pytest.mark.parametrize("text", ['{"a" 1}', "{a: 1}", "{'a': 1}", '{"a": 01}', '{"a": "x}]', '{"a": "\n"}'])
def test_an_object_with_an_error_is_broken_and_not_cut_off(text: str) -> None:
    with pytest.raises(ValueError, match=r"delimiter|property name|Unterminated|control character"):
        Window(io.BytesIO(text.encode()), "utf-8").value()


def test_lines_are_counted_over_what_was_forgotten() -> None:
    window = Window(Trickle(b"[\n1,\n\n2,\n3]", 1), "utf-8")
    window.skip("[")
    lines = []
    for _ in range(3):
        window.peek(commas=True)
        lines.append(window.line)
        window.value()
    assert lines == [2, 4, 5]


@pytest.mark.parametrize(
    ("name", "content", "layout"),
    [
        ("x.json", '[{"a": 1}]', Layout(Shape.ARRAY)),
        ("x.json", "\ufeff \n[", Layout(Shape.ARRAY)),
        ("x.json", '{"a": 1}\n{"a": 2}\n', Layout(Shape.LINES)),
        ("x.json", '{"a": {\n"b": 1}}\n{"a": 2}\n', Layout(Shape.OBJECTS)),
        ("x.json", '{"a": 1}', Layout(Shape.OBJECTS)),
        ("x.json", '{"data": [{"a": 1}]}', Layout(Shape.WRAPPED, "data")),
        ("x.json", '{"data": [{"a": 1}]}\n{"data": [{"a": 1}]}', Layout(Shape.LINES)),
        ("x.json", '{"tags": ["x"], "rows": [{"a": 1}], "n": {"x": [{}]}}', Layout(Shape.WRAPPED, "rows")),
        ("x.json", '{"notes": [{"a": 1}], "text": "x"}', Layout(Shape.OBJECTS)),
        ("x.json", '{"messages": [{"role": "user"}]}', Layout(Shape.OBJECTS)),
        ("x.json", '{"data": [{"a": 1}, {"a"', Layout(Shape.WRAPPED, "data")),
        ("x.json", '{"data": [{"a": 1}, {"a" 2}]}', Layout(Shape.WRAPPED, "data")),
        ("x.json", '{"data": [1, 2]}', Layout(Shape.OBJECTS)),
        ("x.json", '{"data": {"a": 1}', Layout(Shape.OBJECTS)),
        ("x.json", "", Layout(Shape.LINES)),
        ("x.jsonl", '{"data": [{"a": 1}]}', Layout(Shape.LINES)),
        ("x.jsonl", '[{"a": 1}]\n', Layout(Shape.ARRAY)),
        ("x.jsonl", '[{"a": 1},\n{"a": 2}]\n', Layout(Shape.ARRAY)),
        ("x.jsonl", '[{"a": 1}]\n[{"a": 2}]\n', Layout(Shape.LINES)),
        ("x.jsonl", '\n{\n"a": 1}\n', Layout(Shape.OBJECTS)),
        ("x.ndjson", "[1]\n", Layout(Shape.LINES)),
        ("x.jsonl", "", Layout(Shape.LINES)),
    ],
)
def test_the_layout_is_told_by_the_content(tmp_path: Path, name: str, content: str, layout: Layout) -> None:
    assert find_layout(raw_file(tmp_path, content, name)) == layout


def test_a_jsonl_file_that_is_none_is_read_with_a_note(tmp_path: Path) -> None:
    file = raw_file(tmp_path, '[\n{"a": 1}\n]', "x.jsonl")
    assert rows_of(file) == [{"a": 1}]
    assert file.notes == ["x.jsonl: not one object a line, read as a JSON array"]


ARRAY = [{"a": index, "text": f"row {index}, {{[\"é\\'😀", "list": [{"b": None}]} for index in range(4)]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("wrap", [False, True])
def test_an_array_cut_at_any_byte_gives_its_whole_rows_and_one_reject(
    tmp_path: Path, indent: int | None, wrap: bool
) -> None:
    data = json.dumps({"n": 1, "data": ARRAY} if wrap else ARRAY, indent=indent, ensure_ascii=False).encode()
    whole = [json.dumps(row, indent=indent, ensure_ascii=False) for row in ARRAY]
    first = data.index(b"0") + 1
    last = data.rindex(b"]")
    for end in range(first, last):
        found = rows_of(raw_file(tmp_path, data[:end]))
        assert isinstance(found[-1], Reject)
        assert (found[-1].reason, found[-1].line) == ("truncated_input", len(found))
        assert found[:-1] == ARRAY[: len(found) - 1]
        kept = sum(len(row) for row in whole[: len(found) - 1])
        assert kept <= end, "no row is made up"
    assert rows_of(raw_file(tmp_path, data)) == ARRAY


def test_a_row_larger_than_the_window_is_read(tmp_path: Path) -> None:
    rows = [{"a": "x" * 5_000_000}, {"a": "é" * 3_000_000}, {"a": 1}]
    assert rows_of(raw_file(tmp_path, json.dumps(rows))) == rows


def test_after_a_broken_row_that_a_window_cuts_the_next_is_found(tmp_path: Path) -> None:
    content = '[\n  {"a": 1},\n  {"a" ' + "x" * 2_500_000 + '\n},\n  {"a": 3}\n]'
    first, bad, last = rows_of(raw_file(tmp_path, content))
    assert (first, last) == ({"a": 1}, {"a": 3})
    assert (bad.line, bad.reason, bad.detail) == (2, "parse_json", "Expecting ':' delimiter")
    assert bad.raw.startswith('{"a" xxx')
    assert len(bad.raw) == 4096


def test_the_raw_text_of_a_broken_row_is_that_row(tmp_path: Path) -> None:
    bad = rows_of(raw_file(tmp_path, '[\n {"a": 1},\n {"a" 2},\n {"a": 3}\n]'))[1]
    assert bad.raw == '{"a" 2},'


def test_rows_lost_after_a_broken_one_are_said(tmp_path: Path) -> None:
    file = raw_file(tmp_path, '[{"a": 1}, {"a" 2}, {"a": 3}]')
    (_, bad) = rows_of(file)
    assert bad.detail == "no JSON from here on: Expecting ':' delimiter"
    assert file.notes == [f"x.json: nothing was read from line 2 on: {bad.detail}"]


PAIRS = st.recursive(
    SCALARS.map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(["a", 'b"', "c\\", '\\"']), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{json.dumps(key)} : {value}" for key, value in pairs) + "}"
        )
    ),
)


class Twice(Exception):
    pass


def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Twice
    return dict(pairs)


@given(PAIRS, PAIRS)
def test_a_key_that_stands_twice_anywhere_is_found_and_nothing_else(one: str, two: str) -> None:
    text = f'{{"x": {one}, "y\\\\": {two}}}'
    item = parse_row(RawFile(Path("x"), "x"), 1, text.encode())
    try:
        value = json.loads(text, object_pairs_hook=refuse_twice)
    except Twice:
        assert isinstance(item, Reject)
        assert "stands there twice" in item.detail
    else:
        assert isinstance(item, Record)
        assert item.value == value
        assert json.dumps(item.value) == json.dumps(value), "integers stay integers"
