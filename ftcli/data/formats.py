"""From raw rows of the known formats to canonical rows: one row at a time, and what to say about columns before that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from ftcli.core.errors import BadData
from ftcli.data.converters import FIELDS, FORMATS, FormatName, columns_of
from ftcli.data.detect import SAMPLE_ROWS, detect, detect_row, detect_row_type
from ftcli.data.records import Reason, Record, Refused, RowNotes, raw_json
from ftcli.data.rows import Row, RowType

__all__ = [
    "FIELDS",
    "FORMATS",
    "SAMPLE_ROWS",
    "FormatChoice",
    "FormatName",
    "check_columns",
    "detect",
    "detect_row_type",
    "rename",
    "require_columns",
    "to_row",
    "unused_columns",
]

FormatChoice = Literal["mixed"] | FormatName
OWN_META = ("file", "line")
"""Keys of ``meta`` that prep sets; no column is kept under their names."""


def rename(record: Record, columns: Mapping[str, str]) -> Record:
    """``record`` with the source columns of ``columns`` (format's column -> source column) under the format's names."""
    if not columns:
        return record
    taken = set(columns.values())
    kept = {name: item for name, item in record.value.items() if name not in taken}
    mapped = {ours: record.value[theirs] for ours, theirs in columns.items() if theirs in record.value}
    return Record(record.file, record.line, kept | mapped)


def check_columns(sample: Sequence[Record], columns: Mapping[str, str], keep: Sequence[str] = ()) -> None:
    """Raise `BadData` if a source column of ``columns``, or one to ``keep``, is in no record of ``sample`` (not yet renamed)."""
    there = dict.fromkeys(name for record in sample for name in record.value)
    listed = f"there are: {', '.join(there) or 'none'}"
    missing = [theirs for theirs in columns.values() if theirs not in there]
    if missing:
        raise BadData(f"no column {', '.join(missing)} for map; {listed}", "correct map")
    for name in keep:
        if name in OWN_META:
            raise BadData(f"column {name} cannot be kept, since meta has a {name} of its own", "rename the column")
        if name not in there and not any(name in (_own_meta(record.value) or ()) for record in sample):
            raise BadData(f"no column {name} to group or stratify by; {listed}", "correct group_by or stratify_by")


def require_columns(sample: Sequence[Record], name: FormatChoice) -> None:
    """Raise `BadData` if no record of ``sample`` has the columns of format ``name``."""
    if name == "mixed":
        return
    item = FORMATS[name]
    if any(not item.missing(record.value) for record in sample):
        return
    there = dict.fromkeys(column for record in sample for column in record.value)
    missing = item.missing(dict.fromkeys(there, ""))
    if not missing:  # every column is in some record, but all of them in none
        missing = item.missing(sample[0].value)
    raise BadData(
        f"format {name} needs column {', '.join(missing)}; there are: {', '.join(there) or 'none'}",
        f"choose another format, or --map '{{{missing[0]}: COLUMN}}'",
    )


def unused_columns(sample: Sequence[Record], name: FormatChoice) -> list[str]:
    """Columns of ``sample`` that format ``name`` does not read. Those of rows made by prep itself are never missed."""
    read = {*(FIELDS if name == "mixed" else FORMATS[name].columns), "id", "meta"}
    return [name for name in dict.fromkeys(name for record in sample for name in record.value) if name not in read]


def to_row(
    record: Record, name: FormatChoice, notes: RowNotes, keep: Sequence[str] = (), kind: RowType | None = None
) -> Row:
    """The canonical row of a raw one, its columns already renamed.

    ``meta`` has the file and line that it came from, and the columns in ``keep`` as text. A row that is canonical already keeps
    its ``id`` and all of its ``meta``. With ``mixed``, the row's format is found by its own columns; ``kind`` is the one type that
    rows may have then. Raises `Refused`.
    """
    value = record.value
    item = FORMATS[detect_row(value) if name == "mixed" else name]
    if kind is not None and item.row_type is not kind:
        raise Refused(Reason.TYPE_ERROR, f"a {item.row_type} row among {kind} rows")
    missing = item.missing(value)
    if missing:
        raise Refused(Reason.MISSING_FIELD, f"no {', '.join(missing)}; the row has {columns_of(value)}")
    row = item.convert(value, notes)
    own = _own_meta(value)
    row["meta"] = {**(own or {}), **_kept(value, keep), **_place(record, own or {})}
    _check_writable(row)
    return row if own is None else {"id": value["id"], **row}


def _own_meta(value: dict[str, Any]) -> dict[str, Any] | None:
    """The ``meta`` of a row that ftcli made, known by a text ``id`` beside it; what others call so means something else."""
    meta = value.get("meta")
    return meta if isinstance(meta, dict) and isinstance(value.get("id"), str) else None


def _place(record: Record, own: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(own.get("file"), str) and type(own.get("line")) is int:
        return {"file": own["file"], "line": own["line"]}
    return {"file": record.file, "line": record.line}


def _kept(value: dict[str, Any], keep: Sequence[str]) -> dict[str, str]:
    """The columns to keep, as text, so that 7 and "7" are one group and every tool can read ``meta``."""
    there = {name: value[name] for name in keep if value.get(name) is not None}
    return {name: item if isinstance(item, str) else raw_json(item) for name, item in there.items()}


def _check_writable(row: Row) -> None:
    """Refuse what cannot be written as JSON in UTF-8."""
    try:
        orjson.dumps(row)
    except TypeError as error:
        for text in _texts(row):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as found:
                detail = f"character {found.start + 1} of a text is a lone surrogate or a byte that is no UTF-8"
                raise Refused(Reason.ENCODING, detail) from None
        raise Refused(Reason.TYPE_ERROR, f"the row cannot be written as JSON: {error}") from None


def _texts(value: Any) -> list[str]:
    """All texts in a JSON value, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _texts(part)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []
