"""JSON lines and JSON arrays: one bad row costs one row."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import BadData
from ftcli.data.records import Record, Reject
from ftcli.data.sources.jsonl import read_json, read_jsonl


def lines_of(tmp_path: Path, content: bytes) -> list[Record | Reject]:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    return list(read_jsonl(path, "x.jsonl"))


def test_a_bad_line_costs_only_itself_and_says_where(tmp_path: Path) -> None:
    content = b'{"a": 1}\n{"a": 2\n[3]\n"s"\nnull\n{"a": "\xe9"}\n{"a": 7}\n'
    items = lines_of(tmp_path, content)
    assert [(item.line, getattr(item, "reason", "ok")) for item in items] == [
        (1, "ok"),
        (2, "parse_json"),
        (3, "not_object"),
        (4, "not_object"),
        (5, "not_object"),
        (6, "encoding"),
        (7, "ok"),
    ]
    bad = [item for item in items if isinstance(item, Reject)]
    assert bad[0].raw == '{"a": 2'
    assert bad[1].detail == "a JSON array, an object needed"
    assert bad[4].detail == "byte 8 of the line is no UTF-8"
    assert bad[4].raw == '{"a": "\\xe9"}'


def test_bom_crlf_blank_lines_and_line_separators_inside_strings(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n' + '{"a": "x\u2028y\u0085z"}\n{"a": "last"}'.encode()
    assert lines_of(tmp_path, content) == [
        Record("x.jsonl", 1, {"a": 1}),
        Record("x.jsonl", 4, {"a": "x\u2028y\u0085z"}),
        Record("x.jsonl", 5, {"a": "last"}),
    ]


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\x00", "{}".encode("utf-16")])
def test_hostile_lines_are_refused_like_any_other(tmp_path: Path, line: bytes) -> None:
    items = lines_of(tmp_path, line + b'\n{"a": 1}\n')
    assert isinstance(items[0], Reject)
    assert items[-1].line == 2 or isinstance(items[-1], Record)


def read_array(tmp_path: Path, content: bytes) -> list[Record | Reject]:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    return list(read_json(path, "x.json"))


def test_rows_of_an_array_are_counted_from_one(tmp_path: Path) -> None:
    items = read_array(tmp_path, b'\xef\xbb\xbf[{"a": 1}, 2, {"a": 3}]')
    assert [(item.line, getattr(item, "reason", "ok")) for item in items] == [(1, "ok"), (2, "not_object"), (3, "ok")]


def test_json_lines_under_the_name_json_are_read(tmp_path: Path) -> None:
    items = read_array(tmp_path, b'{"a": 1}\nbroken\n{"a": 2}\n')
    assert [getattr(item, "reason", "ok") for item in items] == ["ok", "parse_json", "ok"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, {"a"', "x.json: no JSON"),
        (b'[{"a":\n "\xe9"}]', "x.json:2: not UTF-8"),
        (b'{"data":\n [1]}', "x.json: one JSON object, an array of rows needed"),
        (b"7", "x.json: one JSON number, an array of rows needed"),
        (b"[" * 100_000, "x.json: no JSON"),
    ],
)
def test_a_file_that_is_no_array_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BadData, match=message):
        read_array(tmp_path, content)
