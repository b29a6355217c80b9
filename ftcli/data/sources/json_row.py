"""One JSON object from bytes: orjson for speed, the standard library as judge of what orjson refuses.

The judge says precisely what is wrong. Two things that orjson passes over in silence are looked for beside it, exactly and
for less than the time of parsing: a key that stands twice in an object (the first value would be lost), which leaves
quotes over; and an integer beyond 64 bits, which would become a float.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from ftcli.data.records import Reason, Record, Refused, Reject
from ftcli.data.sources.raw_file import RawFile

KINDS = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", type(None): "null"}
ESCAPED = re.compile(rb'\\["\\]')
EXACT_FLOAT = 2.0**63
"""Integers below this are read as integers."""


def parse_row(file: RawFile, line: int, data: bytes) -> Record | Reject:
    """The row in ``data``, one JSON value."""
    try:
        value = orjson.loads(data)
        surplus = data.count(b'"') - 2 * _strings(value)
        if surplus and surplus != ESCAPED.findall(data).count(b'\\"'):
            raise ValueError  # quotes that are neither around a key or text of the value nor escaped: something was dropped
    except (ValueError, RecursionError):
        try:
            value = _judged(file, data)
        except Refused as refused:
            return Reject(file.name, line, refused.reason, refused.detail, _shown(data))
    if type(value) is dict:
        return Record(file.name, line, value)
    detail = f"a JSON {KINDS[type(value)]}, an object needed"
    return Reject(file.name, line, Reason.NOT_OBJECT, detail, _shown(data))


def _shown(data: bytes) -> str:
    return data.rstrip(b"\r\n").decode("utf-8", "backslashreplace")


def _strings(value: Any) -> int:
    """How many keys and texts a JSON value holds. Raises `ValueError` if it holds a float that may have been an integer."""
    kind = type(value)
    if kind is str:
        return 1
    if kind is dict:
        count = len(value)
        for item in value.values():
            count += 1 if type(item) is str else _strings(item)
        return count
    if kind is list:
        return sum(map(_strings, value))
    if kind is float and not -EXACT_FLOAT < value < EXACT_FLOAT:
        raise ValueError
    return 0


def _judged(file: RawFile, data: bytes) -> Any:
    """The value in ``data`` if it is strict JSON. Raises `Refused` with the reason if it is not."""
    try:
        text = file.decoded(data).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Refused(Reason.ENCODING, f"byte {error.start + 1} of the row is no UTF-8") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except RecursionError:
        raise Refused(Reason.PARSE_JSON, "nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Refused(Reason.PARSE_JSON, f"{error.msg}: column {error.pos + 1}") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise Refused(Reason.ENCODING, f"{half} is half a character, without its other half") from None
    except ValueError as error:
        raise Refused(Reason.PARSE_JSON, str(error)) from None
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON, write null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return value
