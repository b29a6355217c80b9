"""CSV and TSV by the standard library: values stay the strings they are (``007``, ``NA``), unlike in readers that guess types.

A quote that is never closed swallows all rows after it. Those are read again as rows of their own where they look like
rows; otherwise the file was cut off inside a long text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence

from ftcli.core.errors import BadData
from ftcli.data.records import RAW_BYTES, Reason, Record, Reject
from ftcli.data.sources.raw_file import Mine, RawFile

FIELD_CHARS = 64 * 2**20
DELIMITERS = ",;\t"
UNCLOSED = "a quote opened here is never closed"
LIKE_ROWS = 0.9
"""Share of swallowed lines that must be rows by themselves. Of the lines of a text, few have the right number of commas."""


def read_csv(file: RawFile, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Rows of a file whose first line names the columns; ``,`` ``;`` or tab, whichever that line has most of.

    Raises `BadData` if that line cannot be read, or names a column twice.
    """
    for index, item in enumerate(_rows(file)):
        yield item if mine is None or mine(index) else None


def delimiter_of(file: RawFile) -> str:
    """What separates the columns."""
    with file.open_text() as text:
        return _delimiter(_Lines(iter(text)), file)


class _Lines:
    """The lines of a file, with those of the row being read, which can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: list[str] = []
        self.row: list[str] = []
        self.number = 0
        """Of the last line handed out, counted from 1."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self.row.append(line)
        self.number += 1
        return line

    def give_back(self, count: int) -> None:
        """Hand out the last ``count`` lines of the row once more."""
        if count:
            self._again += reversed(self.row[-count:])
            self.number -= count


def _rows(file: RawFile) -> Iterator[Record | Reject]:
    csv.field_size_limit(FIELD_CHARS)  # the default of 128 kB is shorter than one long document
    with file.open_text() as text:
        lines = _Lines(iter(text))
        delimiter = _delimiter(lines, file)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header = _header(reader, file)
        while True:
            lines.row.clear()
            number = lines.number + 1
            try:
                values = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                if not _is_unclosed(error):
                    yield Reject(file.name, number, Reason.PARSE_CSV, str(error), "".join(lines.row))
                elif _are_rows(lines.row[1:], len(header), delimiter):
                    yield Reject(file.name, number, Reason.PARSE_CSV, UNCLOSED, lines.row[0])
                    lines.give_back(len(lines.row) - 1)
                else:
                    yield file.cut_off(number, "".join(lines.row)[:RAW_BYTES], UNCLOSED)
                    return
                continue
            if file.damage and not lines.row[-1].endswith(("\n", "\r")):
                yield file.cut_off(number, "".join(lines.row)[:RAW_BYTES])
                return
            if values:
                yield _as_record(file, number, header, values, lines.row)
    if file.damage:
        yield file.cut_off(number)


def _delimiter(lines: _Lines, file: RawFile) -> str:
    """What separates the columns, from the first line that is not blank; a line ``sep=;``, as Excel writes it, is passed over."""
    first = next((line for line in lines if line.strip()), "")
    declared = re.fullmatch(r"sep=(.)\s*", first)
    if declared:
        return declared[1]
    lines.give_back(min(1, len(lines.row)))
    if "\t" in first and ".tsv" in file.path.suffixes:
        return "\t"
    return max(DELIMITERS, key=first.count)


def _header(reader: Iterator[list[str]], file: RawFile) -> list[str]:
    try:
        header = [column.strip() for column in next(reader, [])]
    except csv.Error as error:
        raise BadData(f"{file.name}:1: {error}", "the first line must name the columns") from None
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled:
        raise BadData(
            f"{file.name}:1: column {doubled[0]!r} stands there twice", "the first line must name the columns"
        )
    return header


def _is_unclosed(error: csv.Error) -> bool:
    return any(message in str(error) for message in ("unexpected end of data", "field larger than field limit"))


def _are_rows(lines: Sequence[str], columns: int, delimiter: str) -> bool:
    """Whether ``lines`` are rows of several ``columns`` rather than lines of a text, by `LIKE_ROWS`."""
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    rows = fitting = 0
    while columns > 1:
        try:
            fitting += len(next(reader)) == columns
        except StopIteration:
            break
        except csv.Error:
            pass
        rows += 1
    return rows > 0 and fitting >= LIKE_ROWS * rows


def _as_record(file: RawFile, number: int, header: list[str], values: list[str], lines: list[str]) -> Record | Reject:
    text = lines[0] if len(lines) == 1 else "".join(lines)
    if len(values) != len(header):
        detail = f"{len(values)} fields, the header names {len(header)}"
        return Reject(file.name, number, Reason.PARSE_CSV, detail, text)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raw = file.encoded(text).decode("utf-8", "backslashreplace")
            return Reject(
                file.name, number, Reason.ENCODING, f"character {error.start + 1} of the row is no UTF-8", raw
            )
    return Record(file.name, number, dict(zip(header, values, strict=True)))
