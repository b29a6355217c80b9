"""CSV: strings stay strings, and a broken row costs one row."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ftcli.core.errors import BadData
from ftcli.data.records import Record, Reject
from ftcli.data.sources.csv_file import read_csv


def rows_of(tmp_path: Path, content: str | bytes, name: str = "x.csv") -> list[Record | Reject]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_csv(path, name))


def test_values_stay_the_strings_they_are(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "\ufeffq,a\r\n007,NA\r\n1e3,\r\n") == [
        Record("x.csv", 2, {"q": "007", "a": "NA"}),
        Record("x.csv", 3, {"q": "1e3", "a": ""}),
    ]


def test_quoted_line_breaks_keep_rows_and_line_numbers_right(tmp_path: Path) -> None:
    content = 'q,a\n"one\ntwo, three","say ""hi"""\n\nnext,row\n'
    assert rows_of(tmp_path, content) == [
        Record("x.csv", 2, {"q": "one\ntwo, three", "a": 'say "hi"'}),
        Record("x.csv", 5, {"q": "next", "a": "row"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_read_from_the_header(tmp_path: Path, delimiter: str) -> None:
    content = f"q{delimiter}a\nx{delimiter}y\n"
    assert rows_of(tmp_path, content) == [Record("x.csv", 2, {"q": "x", "a": "y"})]


def test_ragged_and_misquoted_rows_are_refused_with_their_text(tmp_path: Path) -> None:
    items = rows_of(tmp_path, 'q,a\nonly\n1,2,3\n"x"y,z\nfine,row\n')
    assert [(item.line, getattr(item, "reason", "ok")) for item in items] == [
        (2, "parse_csv"),
        (3, "parse_csv"),
        (4, "parse_csv"),
        (5, "ok"),
    ]
    bad = [item for item in items if isinstance(item, Reject)]
    assert bad[0].detail == "1 fields, the header names 2"
    assert bad[2].raw == '"x"y,z\n'


def test_a_quote_that_never_closes_is_an_error_and_not_one_long_row(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"x.csv:3: a quote opened here is never closed"):
        rows_of(tmp_path, 'q,a\n1,2\n3,"open\n5,6\n7,8\n')


def test_a_column_named_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="column 'q' stands there twice"):
        rows_of(tmp_path, "q,q\n1,2\n")


def test_a_misquoted_header_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"x\.csv:1"):
        rows_of(tmp_path, '"q"x,a\n1,2\n')


def test_a_field_longer_than_the_csv_modules_default_is_read(tmp_path: Path) -> None:
    long = "x" * (csv.field_size_limit(131072) and 200_000)
    (row,) = rows_of(tmp_path, f"q,a\n{long},b\n")
    assert isinstance(row, Record)
    assert len(row.value["q"]) == 200_000


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "") == []


def test_bytes_that_are_no_utf8_become_lone_surrogates(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, b"q,a\ncaf\xe9,b\n")
    assert isinstance(row, Record)
    assert row.value["q"] == "caf\udce9"
