"""JSON lines: one bad row costs one row, and rows of others are not parsed."""

from __future__ import annotations

from pathlib import Path

from ftcli.data.records import Record, Reject
from ftcli.data.sources.jsonl import read_jsonl
from ftcli.data.sources.raw_file import RawFile


def lines_of(tmp_path: Path, content: bytes) -> list[Record | Reject | None]:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    return list(read_jsonl(RawFile(path, "x.jsonl")))


def test_lines_are_counted_with_the_blank_ones(tmp_path: Path) -> None:
    assert lines_of(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}\n{"a": "last"}') == [
        Record("x.jsonl", 1, {"a": 1}),
        Record("x.jsonl", 4, {"a": 2}),
        Record("x.jsonl", 5, {"a": "last"}),
    ]


def test_rows_of_others_are_skipped_unparsed_and_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 0}\n\n{broken\n{"a": 2}\n{broken too\n')
    asked: list[int] = []

    def is_even(index: int) -> bool:
        asked.append(index)
        return index % 2 == 0

    assert list(read_jsonl(RawFile(path, "x.jsonl"), is_even)) == [
        Record("x.jsonl", 1, {"a": 0}),
        None,
        Record("x.jsonl", 4, {"a": 2}),
        None,
    ]
    assert asked == [0, 1, 2, 3]
