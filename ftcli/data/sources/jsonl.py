"""JSON lines and JSON arrays.

JSON lines are read as bytes and split at line feeds only: `str.splitlines` would break valid rows at U+2028. One
bad line never costs the file. A JSON array is parsed whole, so a broken one is an error of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftcli.core.errors import BadData
from ftcli.data.records import Reason, Record, Reject, raw_json

BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path, name: str) -> Iterator[Record | Reject]:
    """Rows of a file with one JSON object a line; ``name`` is how records call the file. Blank lines are no rows."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(BOM) if number == 1 else line
            if line.strip():
                yield _parsed(name, number, line.rstrip(b"\r\n"))


def _parsed(name: str, number: int, line: bytes) -> Record | Reject:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} of the line is no UTF-8"
        return Reject(name, number, Reason.ENCODING, detail, line.decode("utf-8", "backslashreplace"))
    try:
        value = json.loads(text)
    except RecursionError:
        return Reject(name, number, Reason.PARSE_JSON, "nested too deeply", text)
    except ValueError as error:
        return Reject(name, number, Reason.PARSE_JSON, str(error), text)
    return as_record(name, number, value)


def as_record(name: str, number: int, value: Any) -> Record | Reject:
    if isinstance(value, dict):
        return Record(name, number, value)
    return Reject(name, number, Reason.NOT_OBJECT, f"a JSON {_kind(value)}, an object needed", raw_json(value))


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", type(None): "null"}
    return names[type(value)]


def read_json(path: Path, name: str) -> Iterator[Record | Reject]:
    """Rows of a .json file: an array of objects, or one object a line in spite of the name.

    Raises `BadData` for a file that is neither.
    """
    content = path.read_bytes().removeprefix(BOM)
    if content.lstrip()[:1] == b"{" and _first_line_is_object(content.lstrip()):
        yield from read_jsonl(path, name)
        return
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadData(f"{name}:{line}: not UTF-8", f"convert it: iconv -f ENCODING -t UTF-8 {name}") from None
    except (ValueError, RecursionError) as error:
        raise BadData(
            f"{name}: no JSON: {error}", "the file may be cut off; .jsonl (one object a line) survives bad rows"
        ) from None
    if not isinstance(value, list):
        raise BadData(
            f"{name}: one JSON {_kind(value) if not isinstance(value, dict) else 'object'}, an array of rows needed"
        )
    for number, item in enumerate(value, start=1):
        yield as_record(name, number, item)


def _first_line_is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content.split(b"\n", 1)[0]), dict)
    except (ValueError, RecursionError):
        return False
