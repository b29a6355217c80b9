"""CSV: strings stay strings, and a broken row costs one row."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.core.errors import BadData
from ftcli.data.records import Reason, Record, Reject
from ftcli.data.sources import csv_file
from ftcli.data.sources.csv_file import read_csv
from ftcli.data.sources.raw_file import RawFile


def rows_of(tmp_path: Path, content: str | bytes, name: str = "x.csv") -> list[Record | Reject]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [item for item in read_csv(RawFile(path, name)) if item is not None]


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


def test_after_a_quote_that_never_closes_rows_are_read_and_text_is_not(tmp_path: Path) -> None:
    start = 'q,a\n1,2\n3,"open\n'
    before, bad, *after = rows_of(tmp_path, start + "".join(f"{n},x\n" for n in range(20)) + "ragged\n")
    assert before == Record("x.csv", 2, {"q": "1", "a": "2"})
    assert bad == Reject("x.csv", 3, Reason.PARSE_CSV, "a quote opened here is never closed", '3,"open\n')
    assert after[:20] == [Record("x.csv", 4 + n, {"q": str(n), "a": "x"}) for n in range(20)]
    assert [item.line for item in after[20:]] == [24]
    _, cut = rows_of(tmp_path, start + "a line, with a comma\n" + "and one without\n" * 2)
    assert isinstance(cut, Reject)
    assert (cut.line, cut.reason, cut.detail) == (3, "truncated_input", "a quote opened here is never closed")
    assert cut.raw.endswith("and one without\n")


def test_with_one_column_any_line_would_be_a_row_so_none_is_made_of_a_text(tmp_path: Path) -> None:
    assert [item.line for item in rows_of(tmp_path, 'text\nfine\n"open\nand so on\nand on\n')] == [2, 3]


@given(
    st.lists(st.lists(st.text(alphabet='ab ,;"\n\r\té', max_size=6), min_size=2, max_size=2), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.booleans(),
)
def test_what_the_csv_module_writes_is_read_as_it_was(rows: list[list[str]], delimiter: str, quote_all: bool) -> None:
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([["q", "a"], *rows])
    with tempfile.TemporaryDirectory() as folder:
        items = rows_of(Path(folder), text.getvalue())
    assert [item.value for item in items if isinstance(item, Record)] == [{"q": q, "a": a} for q, a in rows]


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


def test_bytes_that_are_no_utf8_cost_their_row(tmp_path: Path) -> None:
    (good, bad) = rows_of(tmp_path, "q,a\né,b\n".encode() + b"caf\xe9,b\n")
    assert good == Record("x.csv", 2, {"q": "é", "a": "b"})
    assert bad == Reject("x.csv", 3, Reason.ENCODING, "character 4 of the row is no UTF-8", "caf\\xe9,b\n")


def test_a_quote_that_swallows_more_than_a_field_may_hold_is_never_closed_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "FIELD_CHARS", 1000)
    rows = "".join(f"{n},x\n" for n in range(1000))
    bad, *after = rows_of(tmp_path, 'q,a\n1,"open\n' + rows)
    assert (bad.line, getattr(bad, "reason", "ok")) == (2, "parse_csv")
    assert after == [Record("x.csv", 3 + n, {"q": str(n), "a": "x"}) for n in range(1000)]
    (cut,) = rows_of(tmp_path, 'q,a\n1,"open\n' + "prose without any comma\n" * 1000)
    assert (cut.line, getattr(cut, "reason", "ok")) == (2, "truncated_input")
