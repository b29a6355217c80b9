"""CSV and TSV by the standard library: values stay the strings they are (``007``, ``NA``), unlike in readers that guess types."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from ftcli.core.errors import BadData
from ftcli.data.records import Reason, Record, Reject, raw_json

FIELD_BYTES = 64 * 2**20


def read_csv(path: Path, name: str) -> Iterator[Record | Reject]:
    """Rows of a file whose first line names the columns; ``,`` ``;`` or tab, whichever that line has most of.

    Bytes that are no UTF-8 become lone surrogates here, for which `formats.to_rows` refuses the row. A quote that
    is never closed swallows the rest of the file, so it is an error of the file.
    """
    csv.field_size_limit(FIELD_BYTES)  # the default of 128 kB is shorter than one long document
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline()
        file.seek(0)
        lines: list[str] = []
        reader = csv.reader(_remembered(file, lines), delimiter=max(",;\t", key=first.count), strict=True)
        header = _header(reader, name)
        while True:
            number = reader.line_num + 1
            lines.clear()
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise BadData(
                        f"{name}:{number}: a quote opened here is never closed", "close it, or double it"
                    ) from None
                yield Reject(name, number, Reason.PARSE_CSV, str(error), "".join(lines))
            else:
                if values:
                    yield _as_record(name, number, header, values)


def _remembered(file: Iterable[str], lines: list[str]) -> Iterator[str]:
    """The lines of ``file``, each also appended to ``lines``: the raw text of the row being read."""
    for line in file:
        lines.append(line)
        yield line


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        header = next(reader)
    except StopIteration:
        return []
    except csv.Error as error:
        raise BadData(f"{name}:1: {error}", "the first line must name the columns") from None
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled:
        raise BadData(f"{name}:1: column {doubled[0]!r} stands there twice", "the first line must name the columns")
    return header


def _as_record(name: str, number: int, header: list[str], values: list[str]) -> Record | Reject:
    if len(values) != len(header):
        detail = f"{len(values)} fields, the header names {len(header)}"
        return Reject(name, number, Reason.PARSE_CSV, detail, raw_json(values))
    return Record(name, number, dict(zip(header, values, strict=True)))
