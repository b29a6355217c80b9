"""The bad-input matrix: what a file gives, row by row, for everything that is known to go wrong with files.

Each case lists, in order, the values of the rows that are read and the reasons and lines of those that are refused.
"""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ftcli.core.errors import BadData
from ftcli.data.records import Record
from ftcli.data.sources.files import open_records

ROWS = b'{"a": 1}\n{"a": 2}\n{"a": 3}\n'
GZIP = gzip.compress(b"".join(b'{"a": %d, "b": "%s"}\n' % (n, b"%x" % (n * 7919**5)) for n in range(20_000)), mtime=0)


def read(tmp_path: Path, name: str, content: bytes) -> tuple[list[Any], list[str]]:
    """Values of records and ``(line, reason)`` of rejects, and the notes."""
    (tmp_path / name).write_bytes(content)
    notes: list[str] = []
    items = list(open_records(tmp_path / name, notes))
    return [item.value if isinstance(item, Record) else (item.line, str(item.reason)) for item in items], notes


CASES: dict[str, tuple[str, bytes, list[Any]]] = {
    # JSON lines
    "a broken row": ("x.jsonl", b'{"a": 1}\n{"a": 2\n{"a": 3}\n', [{"a": 1}, (2, "parse_json"), {"a": 3}]),
    "a type that changes": ("x.jsonl", b'{"a": 1}\n{"a": "x"}\n{"a": [1]}\n', [{"a": 1}, {"a": "x"}, {"a": [1]}]),
    "blank lines": ("x.jsonl", b'\n{"a": 1}\n  \t\n\r\n{"a": 2}\n\n', [{"a": 1}, {"a": 2}]),
    "a byte order mark": ("x.jsonl", b"\xef\xbb\xbf" + ROWS, [{"a": 1}, {"a": 2}, {"a": 3}]),
    "a mark inside, as cat leaves it": ("x.jsonl", b'{"a": 1}\n\xef\xbb\xbf{"a": 2}\n', [{"a": 1}, {"a": 2}]),
    "CRLF": ("x.jsonl", ROWS.replace(b"\n", b"\r\n"), [{"a": 1}, {"a": 2}, {"a": 3}]),
    "no line feed at the end": ("x.jsonl", ROWS[:-1], [{"a": 1}, {"a": 2}, {"a": 3}]),
    "one byte that is no UTF-8": (
        "x.jsonl",
        '{"a": "é"}\n'.encode() + b'{"a": "\xe9"}\n' + ROWS[:9],
        [{"a": "é"}, (2, "encoding"), {"a": 1}],
    ),
    "a lone surrogate": ("x.jsonl", b'{"a": "\\ud800"}\n{"a": "\\ud83d\\ude00"}\n', [(1, "encoding"), {"a": "😀"}]),
    "NaN": (
        "x.jsonl",
        b'{"a": NaN}\n{"a": -Infinity}\n{"a": null}\n',
        [(1, "parse_json"), (2, "parse_json"), {"a": None}],
    ),
    "a float beyond all floats": ("x.jsonl", b'{"a": 1e400}\n{"a": 1e300}\n', [(1, "parse_json"), {"a": 1e300}]),
    "a key twice": (
        "x.jsonl",
        b'{"a": 1, "a": 2}\n{"m": [{"r": 1, "r": 1}]}\n{"a": "\\"a\\": \\\\"}\n',
        [(1, "parse_json"), (2, "parse_json"), {"a": '"a": \\'}],
    ),
    "large integers": (
        "x.jsonl",
        b'{"a": 9007199254740993}\n{"a": 123456789012345678901234567890}\n{"a": [-18446744073709551616]}\n',
        [{"a": 9007199254740993}, {"a": 123456789012345678901234567890}, {"a": [-(2**64)]}],
    ),
    "an integer of 5,000 digits": (
        "x.jsonl",
        b'{"a": ' + b"9" * 5000 + b'}\n{"a": 1}\n',
        [(1, "parse_json"), {"a": 1}],
    ),
    "rows that are no objects": (
        "x.jsonl",
        b'[1]\n{"a": 1}\n"s"\n7\nnull\ntrue\n',
        [(1, "not_object"), {"a": 1}, *((line, "not_object") for line in (3, 4, 5, 6))],
    ),
    "nulls, as a crash leaves them": (
        "x.jsonl",
        ROWS + b"\0" * 5000,
        [{"a": 1}, {"a": 2}, {"a": 3}, (4, "parse_json")],
    ),
    "a null inside a text": ("x.jsonl", b'{"a": "x\0y"}\n{"a": "x\\u0000y"}\n', [(1, "parse_json"), {"a": "x\0y"}]),
    "a late key": ("x.jsonl", b'{"a": 1}\n{"a": 2, "z": 3}\n', [{"a": 1}, {"a": 2, "z": 3}]),
    "line separators inside a text": ("x.jsonl", '{"a": "x\u2028y\u0085z\x1c"}\n'.encode(), [(1, "parse_json")]),
    "Unicode line separators": (
        "x.jsonl",
        '{"a": "x\u2028y\u2029z\u0085"}\n'.encode(),
        [{"a": "x\u2028y\u2029z\u0085"}],
    ),
    "nested too deeply": (
        "x.jsonl",
        b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"\n" + ROWS[:9],
        [(1, "parse_json"), {"a": 1}],
    ),
    "brackets without end": ("x.jsonl", b"[" * 100_000 + b"\n" + ROWS[:9], [(1, "parse_json"), {"a": 1}]),
    "two rows on one line": ("x.jsonl", b'{"a": 1}{"a": 2}\n{"a": 3}\n', [(1, "parse_json"), {"a": 3}]),
    "HTML of an error page": ("x.jsonl", b"<html>\n</html>\n", [(1, "parse_json"), (2, "parse_json")]),
    "emoji, joiners, right to left": (
        "x.jsonl",
        '{"a": "👩\u200d👩\u200d👧 \u202b\u05e9\u05dc\u05d5\u05dd\u202c"}\n'.encode(),
        [{"a": "👩\u200d👩\u200d👧 \u202b\u05e9\u05dc\u05d5\u05dd\u202c"}],
    ),
    "a pretty-printed array named .jsonl": (
        "x.jsonl",
        b'[\n  {\n    "a": 1\n  },\n  {"a": 2}\n]\n',
        [{"a": 1}, {"a": 2}],
    ),
    "an array on one line named .jsonl": ("x.jsonl", b'[{"a": 1}, {"a": 2}]\n', [{"a": 1}, {"a": 2}]),
    "pretty-printed objects named .jsonl": ("x.jsonl", b'{\n "a": 1\n}\n{\n "a": 2\n}\n', [{"a": 1}, {"a": 2}]),
    # JSON
    "JSON lines named .json": ("x.json", b'{"a": 1}\n{"a": 2\n{"a": 3}\n', [{"a": 1}, (2, "parse_json"), {"a": 3}]),
    "a broken first line named .json": (
        "x.json",
        b'{"a": 1\n{"a": 2}\n{"a": 3}\n',
        [(1, "parse_json"), {"a": 2}, {"a": 3}],
    ),
    "an array": ("x.json", b'[{"a": 1}, 2, {"a": 3}]', [{"a": 1}, (2, "not_object"), {"a": 3}]),
    "a comma too many or too few": ("x.json", b'[{"a": 1} {"a": 2},]', [{"a": 1}, {"a": 2}]),
    "an array cut inside a row": (
        "x.json",
        b'[{"a": 1}, {"a": 2}, {"a": "x',
        [{"a": 1}, {"a": 2}, (3, "truncated_input")],
    ),
    "an array cut between rows": ("x.json", b'[{"a": 1},\n{"a": 2},', [{"a": 1}, {"a": 2}, (3, "truncated_input")]),
    "a broken row on its own line": (
        "x.json",
        b'[\n  {"a": 1},\n  {"a" 2, "m": [\n    {"b": 1}]},\n  {"a": 3}\n]',
        [{"a": 1}, (2, "parse_json"), {"a": 3}],
    ),
    "a line feed inside a text": ("x.json", b'[\n{"a": "x\ny"},\n{"a": 2}\n]', [(1, "parse_json"), {"a": 2}]),
    "a broken row in an array on one line": ("x.json", b'[{"a": 1}, {"a" 2}, {"a": 3}]', [{"a": 1}, (2, "parse_json")]),
    "a broken last row": ("x.json", b'[\n{"a": 1},\n{"a" 2}\n]\n', [{"a": 1}, (2, "parse_json")]),
    "a row nested too deeply": (
        "x.json",
        b"[" + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b',\n{"a": 1}]',
        [(1, "parse_json")],
    ),
    "NaN and a key twice in an array": (
        "x.json",
        b'[{"a": NaN}, {"a": 1, "a": 2}, {"a": "\\ud800"}, {"a": 4}]',
        [(1, "parse_json"), (2, "parse_json"), (3, "encoding"), {"a": 4}],
    ),
    "a byte that is no UTF-8 in an array": (
        "x.json",
        '[{"a": "é"}, '.encode() + b'{"a": "\xe9"}, {"a": 3}]',
        [{"a": "é"}, (2, "encoding"), {"a": 3}],
    ),
    "one array after the other": ("x.json", b'[{"a": 1}]\n[{"a": 2}]\n{"a": 3}\n', [{"a": 1}, {"a": 2}, {"a": 3}]),
    "text after the array": ("x.json", b'[{"a": 1}] and so on and on', [{"a": 1}, (2, "parse_json")]),
    "rows inside an object": (
        "x.json",
        b'{"version": [1], "data": [{"a": 1}, {"a": 2}], "n": 2}',
        [{"a": 1}, {"a": 2}],
    ),
    "rows inside an object, cut": ("x.json", b'{"data": [{"a": 1}, {"a": 2', [{"a": 1}, (2, "truncated_input")]),
    "one row alone": (
        "x.json",
        b'{\n"messages": [{"role": "user", "content": "x"}]\n}',
        [{"messages": [{"role": "user", "content": "x"}]}],
    ),
    "no rows in an array": ("x.json", b" [ ] ", []),
    # CSV
    "only a header": ("x.csv", b"q,a\n", []),
    "quoted line feeds and quotes": (
        "x.csv",
        b'q,a\n"one\ntwo, 3","say ""hi"""\n',
        [{"q": "one\ntwo, 3", "a": 'say "hi"'}],
    ),
    "ragged rows": (
        "x.csv",
        b"q,a\nonly\n1,2,3\nfine,row\n",
        [(2, "parse_csv"), (3, "parse_csv"), {"q": "fine", "a": "row"}],
    ),
    "text after a closing quote": ("x.csv", b'q,a\n"x"y,z\nfine,row\n', [(2, "parse_csv"), {"q": "fine", "a": "row"}]),
    "a quote never closed before rows": (
        "x.csv",
        b'q,a\n1,2\n3,"open\n5,6\n7,8\n',
        [{"q": "1", "a": "2"}, (3, "parse_csv"), {"q": "5", "a": "6"}, {"q": "7", "a": "8"}],
    ),
    "a quote never closed before prose": (
        "x.csv",
        b'q,a\n1,2\n3,"once upon\na time, there\nwas, it is said,\na queen\n',
        [{"q": "1", "a": "2"}, (3, "truncated_input")],
    ),
    "numbers and NA": ("x.csv", b"q,a\n007,NA\n1e3,\n", [{"q": "007", "a": "NA"}, {"q": "1e3", "a": ""}]),
    "semicolons": ("x.csv", b"q;a\nx, y;z\n", [{"q": "x, y", "a": "z"}]),
    "tabs": ("x.tsv", b"q, or question, or so\ta\nx\ty\n", [{"q, or question, or so": "x", "a": "y"}]),
    "a line that names the separator": ("x.csv", b"sep=;\r\nq;a\r\n1;2\r\n", [{"q": "1", "a": "2"}]),
    "blank lines in CSV": ("x.csv", b"\n\nq,a\n\n1,2\n\n", [{"q": "1", "a": "2"}]),
    "line ends of old Macs": ("x.csv", b"q,a\r1,2\r3,4\r", [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]),
    "a byte that is no UTF-8 in CSV": (
        "x.csv",
        "q,a\né,1\n".encode() + b"\xe9,2\nx,3\n",
        [{"q": "é", "a": "1"}, (3, "encoding"), {"q": "x", "a": "3"}],
    ),
    # text
    "a text": ("x.txt", b"One.\r\n\r\nTwo.\r\n", [{"text": "One.\n\nTwo."}]),
    "texts in one file": (
        "x.md",
        b"One.\n<|endoftext|>\nTwo.<|endoftext|>\n\n<|endoftext|>",
        [{"text": "One."}, {"text": "Two."}],
    ),
    "a text of blanks": ("x.txt", b" \n\n ", []),
    # any
    "an empty file": ("x.jsonl", b"", []),
    "an empty array file": ("x.json", b"", []),
    "an empty CSV file": ("x.csv", b"", []),
    "an empty text": ("x.txt", b"", []),
    "an empty gzip file": ("x.jsonl.gz", b"", []),
    "gzip of nothing": ("x.jsonl.gz", gzip.compress(b""), []),
    "gzip": ("x.jsonl.gz", gzip.compress(ROWS), [{"a": 1}, {"a": 2}, {"a": 3}]),
    "gzip in several members": (
        "x.jsonl.gz",
        gzip.compress(ROWS[:12]) + gzip.compress(ROWS[12:]),
        [{"a": 1}, {"a": 2}, {"a": 3}],
    ),
    "gzip padded with zeros": ("x.jsonl.gz", gzip.compress(ROWS) + b"\0" * 512, [{"a": 1}, {"a": 2}, {"a": 3}]),
    "zstd": ("x.jsonl.zst", zstandard.compress(ROWS), [{"a": 1}, {"a": 2}, {"a": 3}]),
    "zstd in several frames": (
        "x.json.zst",
        zstandard.compress(b'[{"a": 1},') + zstandard.compress(b' {"a": 2}]'),
        [{"a": 1}, {"a": 2}],
    ),
    "gzipped CSV": ("x.csv.gz", gzip.compress(b"q,a\n1,2\n"), [{"q": "1", "a": "2"}]),
    "gzipped text": ("x.txt.gz", gzip.compress(b"One."), [{"text": "One."}]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_bad_row_costs_itself_and_is_named(tmp_path: Path, case: str) -> None:
    name, content, expected = CASES[case]
    found, _ = read(tmp_path, name, content)
    assert found == expected


def test_lines_and_details_say_what_to_correct(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        '{"a": "é"}\n'.encode()
        + b'{"a" 1}\n{"a": NaN}\n{"a": "\xe9"}\n{"a": "\\ud800"}\n{"a": 1, "a": 2}\n[]\n{"a": 1e400}\n'
    )
    assert [f"{item}: {item.raw}" for item in open_records(path, []) if not isinstance(item, Record)] == [
        "x.jsonl:2: parse_json: Expecting ':' delimiter: column 6: {\"a\" 1}",
        'x.jsonl:3: parse_json: NaN is no JSON, write null: {"a": NaN}',
        'x.jsonl:4: encoding: byte 8 of the row is no UTF-8: {"a": "\\xe9"}',
        'x.jsonl:5: encoding: \\ud800 is half a character, without its other half: {"a": "\\ud800"}',
        'x.jsonl:6: parse_json: the key \'a\' stands there twice: {"a": 1, "a": 2}',
        "x.jsonl:7: not_object: a JSON array, an object needed: []",
        'x.jsonl:8: parse_json: Out of range float values are not JSON compliant: {"a": 1e400}',
    ]


def test_a_line_of_50_mb_is_a_row(tmp_path: Path) -> None:
    found, _ = read(tmp_path, "x.jsonl", b'{"a": "' + b"x" * 50_000_000 + b'"}\n{"a": 2}\n')
    assert [len(str(row["a"])) for row in found] == [50_000_000, 1]


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst"])
def test_of_a_file_cut_off_every_whole_row_is_read(tmp_path: Path, name: str) -> None:
    lines = gzip.decompress(GZIP).splitlines(keepends=True)
    packed = GZIP if name.endswith("gz") else zstandard.compress(b"".join(lines))
    found, notes = read(tmp_path, name, packed[: len(packed) // 2])
    assert len(found) > 1000
    assert found[:-1] == [json.loads(line) for line in lines[: len(found) - 1]]
    assert found[-1] == (len(found), "truncated_input")
    assert notes == [f"{name}: nothing was read from line {len(found)} on: the compressed file is cut off"]


def test_of_a_file_damaged_in_the_middle_the_rows_before_are_read(tmp_path: Path) -> None:
    half = len(GZIP) // 2
    found, notes = read(tmp_path, "x.jsonl.gz", GZIP[:half] + b"\xff" * 64 + GZIP[half + 64 :])
    lines = gzip.decompress(GZIP).splitlines()
    assert len(found) > 1000
    assert found[:1000] == [json.loads(line) for line in lines[:1000]]
    assert found[-1] == (len(found), "truncated_input")
    assert "the compressed data are damaged" in notes[0]


def test_a_checksum_that_does_not_fit_costs_the_end_and_is_reported(tmp_path: Path) -> None:
    found, notes = read(tmp_path, "x.jsonl.gz", GZIP[:-8] + b"\0" * 8)
    assert 19_000 < len(found) <= 20_001
    assert found[-1] == (len(found), "truncated_input")
    assert "incorrect data check" in notes[0]


def test_other_formats_cut_off_keep_their_rows(tmp_path: Path) -> None:
    table = b"q,a\n" + b"".join(b"%d,%x\n" % (n, n * 7919**5) for n in range(20_000))
    packed = gzip.compress(table)
    found, _ = read(tmp_path, "x.csv.gz", packed[: len(packed) // 2])
    assert len(found) > 1000
    assert found[-2] == {"q": str(len(found) - 2), "a": f"{(len(found) - 2) * 7919**5:x}"}
    assert found[-1] == (len(found) + 1, "truncated_input")
    array = gzip.compress(b"[" + b",".join(gzip.decompress(GZIP).splitlines()) + b"]")
    found, _ = read(tmp_path, "x.json.gz", array[: len(array) // 2])
    assert found[1000]["a"] == 1000
    assert found[-1] == (len(found), "truncated_input")
    text = gzip.compress(table + b"<|endoftext|>" + table)
    found, _ = read(tmp_path, "x.txt.gz", text[:-50])
    assert found[0] == {"text": table.decode().strip()}
    assert found[1:] == [(20_002, "truncated_input")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl.gz", ROWS, "x.jsonl.gz: nothing in it can be read: the compressed data are damaged"),
        ("x.jsonl.gz", GZIP[:12], "x.jsonl.gz: nothing in it can be read: the compressed file is cut off"),
        ("x.jsonl.zst", bz2.compress(ROWS), "x.jsonl.zst: nothing in it can be read"),
        ("x.csv.gz", b"\x1f\x8b", "x.csv.gz: nothing in it can be read"),
        ("x.json", b"[", "x.json: nothing in it can be read: the file ends inside a row or array"),
        ("x.json", b"<html>", "x.json: no JSON rows; it begins with '<html>'"),
        ("x.json", b"7", "x.json: no JSON rows; it begins with '7'"),
        ("x.json", b'{"train": [{"a": 1}], "test": [{"a": 2}]}', "several lists of rows: train, test"),
        ("x.csv", b"q,q\n1,2\n", "x.csv:1: column 'q' stands there twice"),
        ("x.csv", b'"q"x,a\n1,2\n', "x.csv:1"),
        ("x.parquet", b"PAR1 and no more", "x.parquet: nothing in it can be read: no Parquet data"),
        ("x.parquet", b"", "x.parquet: nothing in it can be read: no Parquet data"),
        ("x.arrow", b"ARROW1 and no more", "x.arrow: nothing in it can be read: no Arrow data"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_an_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(BadData) as caught:
        read(tmp_path, name, content)
    assert message in caught.value.message


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    unreadable = Path("/proc/self/mem")  # readable for nobody at its beginning, root included
    if not unreadable.exists():
        pytest.skip("needs Linux")
    (tmp_path / "x.jsonl").symlink_to(unreadable)
    with pytest.raises(BadData, match=r"x\.jsonl: cannot be read: Input/output error"):
        list(open_records(tmp_path / "x.jsonl", []))


def test_files_without_rows_are_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.csv", "c.json"):
        (tmp_path / name).write_bytes(b"" if name[0] == "a" else b"q,a\n" if name[0] == "b" else b"[]")
    notes: list[str] = []
    assert list(open_records(tmp_path, notes)) == []
    assert notes == ["a.jsonl: no rows in it", "b.csv: no rows in it", "c.json: no rows in it"]
