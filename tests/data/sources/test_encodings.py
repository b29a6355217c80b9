"""Encodings: told by the whole file, and guessed only where UTF-8 explains nothing."""

from __future__ import annotations

import gzip
import json
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.records import Record
from ftcli.data.sources.encodings import narrow_encoding, wide_encoding
from ftcli.data.sources.files import open_records

WESTERN = "Où est l\u2019élève ? \u2013 „Grüße“, €5, œuvre, año, naïve"
LINES = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in (WESTERN, "plain", "日本語 😀"))
VALUES = [{"text": WESTERN}, {"text": "plain"}, {"text": "日本語 😀"}]


def values_of(path: Path, notes: list[str]) -> list[object]:
    return [item.value if isinstance(item, Record) else str(item.reason) for item in open_records(path, notes)]


@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("pack", [False, True])
def test_every_unicode_encoding_is_read_with_and_without_a_mark(tmp_path: Path, codec: str, pack: bool) -> None:
    content = LINES.replace("\n", "\r\n").encode(codec)
    path = tmp_path / ("x.jsonl.gz" if pack else "x.jsonl")
    path.write_bytes(gzip.compress(content) if pack else content)
    notes: list[str] = []
    assert values_of(path, notes) == VALUES
    assert notes == []


@pytest.mark.parametrize("codec", ["utf-16", "utf-32-be"])
def test_other_formats_too(tmp_path: Path, codec: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(VALUES, ensure_ascii=False, indent=1), encoding=codec)
    (tmp_path / "x.csv").write_text(f"text,n\n日本語 😀,1\n{'é' * 9},2\n", encoding=codec)
    (tmp_path / "x.md").write_text("# 日本語\n", encoding="utf-16")
    assert values_of(tmp_path / "x.json", []) == VALUES
    assert values_of(tmp_path / "x.csv", []) == [{"text": "日本語 😀", "n": "1"}, {"text": "é" * 9, "n": "2"}]
    assert values_of(tmp_path / "x.md", []) == [{"text": "# 日本語"}]


def test_half_a_character_in_utf16_costs_its_row_or_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"a": "x"}\n{"a": "'.encode("utf-16") + b"\x00\xd8" + '"}\n{"a": "y"}\n'.encode("utf-16-le"))
    assert values_of(path, []) == [{"a": "x"}, "encoding", {"a": "y"}]
    path.write_bytes('{"a": "x"}\n{"a": "y"}\n'.encode("utf-16")[:-1])
    notes: list[str] = []
    assert values_of(path, notes) == [{"a": "x"}, "truncated_input"]
    assert "ends inside a character of UTF-16-LE" in notes[0]


def test_numbers_that_are_no_characters_end_a_utf32_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    good = '{"a": "x"}\n'.encode("utf-32-le") * 300_000  # more than is decoded at a time
    path.write_bytes(good + b"\xff\xff\xff\xff")
    found = values_of(path, [])
    assert len(found) > 1000
    assert found[-1] == "truncated_input"


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.txt"])
def test_an_old_western_file_is_read_as_windows_1252_with_a_note(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    quoted = WESTERN.replace('"', '""')
    content = {
        "x.jsonl": json.dumps({"text": WESTERN}, ensure_ascii=False) + "\n",
        "x.json": json.dumps([{"text": WESTERN}], ensure_ascii=False),
        "x.csv": f'text\n"{quoted}"\n',
        "x.txt": WESTERN,
    }[name]
    path.write_bytes(content.encode("cp1252"))
    notes: list[str] = []
    assert values_of(path, notes) == [{"text": WESTERN}]
    assert notes == [f"{name}: no UTF-8, read as Windows-1252 (convert it if that looks wrong: iconv)"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("plain", "ASCII"),
        ("é", "UTF-8"),
        (b"caf\xe9 " + "é".encode(), "UTF-8 elsewhere in the file"),
        (b"caf\xe9 \x81", "a byte without a meaning"),
        (b"caf\xe9 \x00", "a null byte"),
        ("Привет, как дела".encode("cp1251"), "another alphabet"),
        ("你好世界 这是中文".encode("gb18030"), "Chinese"),
        ("こんにちは世界".encode("shift_jis"), "Japanese"),
        ("Καλημέρα κόσμε".encode("iso8859-7"), "Greek"),
    ],
)
def test_whatever_else_is_no_utf8_is_not_guessed(content: str | bytes, why: str) -> None:
    assert narrow_encoding([content.encode() if isinstance(content, str) else content]) == "utf-8", why


def is_western(data: bytes) -> bool:
    """The rule, spelled out slowly with Python's own codecs."""
    if b"\0" in data or any(is_character(data[at : at + size]) for at in range(len(data)) for size in (2, 3, 4)):
        return False
    runs = [len(list(run)) for high, run in groupby(data, lambda byte: byte > 0x7F) if high]
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return bool(runs) and sum(runs) < 2 * len(runs)


def is_character(data: bytes) -> bool:
    try:
        return len(data.decode("utf-8")) == 1 and len(data) > 1
    except UnicodeDecodeError:
        return False


@given(
    st.one_of(
        st.binary(max_size=30),
        st.text(alphabet="abc é€ü日😀", max_size=30).map(str.encode),
        st.text(alphabet="abcdef é€üÃ©", max_size=30).map(lambda text: text.encode("cp1252")),
    ),
    st.integers(1, 40),
)
def test_the_answer_is_that_of_the_rule_wherever_the_file_is_cut_into_chunks(data: bytes, size: int) -> None:
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert narrow_encoding(chunks) == ("cp1252" if is_western(data) else "utf-8")


def test_a_short_head_is_no_wide_encoding() -> None:
    assert wide_encoding(b"") is None
    assert wide_encoding(b"\xff\xfe") == "utf-16-le"
    assert wide_encoding(b"{}\n") is None
    assert wide_encoding(b"\0\0\0\0") is None
