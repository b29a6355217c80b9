"""JSON files that are not JSON lines: an array of rows, an object with such an array in it, or objects one after the other.

They are read a piece at a time, so a file may be larger than memory. Of a file that is cut off, all whole rows are
read. A row that is no JSON costs itself where rows begin lines, as in every file that a person has edited; in an array
on one line it costs the rows after it too, since a brace there may belong to anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ftcli.core.errors import BadData
from ftcli.data.formats import FIELDS
from ftcli.data.records import RAW_BYTES, Reason, Record, Reject
from ftcli.data.sources.json_row import parse_row
from ftcli.data.sources.json_window import CutOff, Window, keys
from ftcli.data.sources.jsonl import read_jsonl
from ftcli.data.sources.raw_file import Mine, RawFile

HEAD_BYTES = 2**16


class Shape(StrEnum):
    LINES = "JSON lines"
    ARRAY = "JSON array"
    WRAPPED = "JSON array in an object"
    OBJECTS = "JSON objects"


@dataclass(frozen=True)
class Layout:
    """How a JSON file holds its rows; ``key`` is where a wrapping object has them."""

    shape: Shape
    key: str = ""


def read_json(file: RawFile, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Rows of a .json, .jsonl or .ndjson file; a row's line is its position, except in JSON lines.

    Raises `BadData` for a file that begins like no JSON, or has several lists of rows.
    """
    layout = find_layout(file)
    if layout.shape is Shape.LINES:
        yield from read_jsonl(file, mine)
        return
    if not _is_json(file):
        file.notes.append(f"{file.name}: not one object a line, read as a {layout.shape}")
    with file.open() as stream:
        window = Window(stream, file.encoding)
        if layout.shape is Shape.WRAPPED:
            for key in keys(window):
                if key == layout.key:
                    break
                if window.skip("["):
                    _leave_list(window)
                else:
                    window.value()
            window.skip("[")
        yield from _rows(file, window, mine, wrapped=layout.shape is Shape.WRAPPED)


def _rows(file: RawFile, window: Window, mine: Mine, *, wrapped: bool) -> Iterator[Record | Reject | None]:
    """The values of top-level arrays, and between them; or of the one array that the window is in, if ``wrapped``.

    Commas may be missing, and one array may follow another: what was meant is plain.
    """
    number, inside = 0, wrapped
    while sign := window.peek(commas=True):
        if sign == ("]" if inside else "["):
            window.skip(sign)
            inside = not inside
            if wrapped and not file.damage:
                return
            continue
        try:
            data = file.encoded(window.value())
        except CutOff:
            break
        except (ValueError, RecursionError) as error:
            raw, goes_on = window.skip_broken(RAW_BYTES)
            detail = getattr(error, "msg", "nested too deeply")
            if not goes_on:
                yield file.cut_off(number + 1, raw, f"no JSON from here on: {detail}", Reason.PARSE_JSON)
                return
            item: Record | Reject = Reject(file.name, number + 1, Reason.PARSE_JSON, detail, raw)
            yield item if mine is None or mine(number) else None
        else:
            yield parse_row(file, number + 1, data) if mine is None or mine(number) else None
        number += 1
    if inside or window.peek() or file.damage:
        yield file.cut_off(number + 1, window.rest(RAW_BYTES), "the file ends inside a row or array")


def find_layout(file: RawFile) -> Layout:
    """How ``file`` holds its rows. What is named .jsonl is JSON lines unless its first line cannot be a row."""
    if not _is_json(file) and _begins_like_lines(file):
        return Layout(Shape.LINES)
    with file.open() as stream:
        window = Window(stream, file.encoding)
        first = window.peek()
        if first == "{":
            return _object_layout(file, window)
        if first and first != "[":
            hint = "rows are an array of objects, or one object a line"
            raise BadData(f"{file.name}: no JSON rows; it begins with {window.rest(20)!r}", hint)
        return Layout(Shape.ARRAY if first else Shape.LINES)


def _is_json(file: RawFile) -> bool:
    return ".json" in file.path.suffixes


def _begins_like_lines(file: RawFile) -> bool:
    """Whether the first line is a row, good or bad, and not the beginning of a pretty-printed value or of an array."""
    with file.open() as lines:
        first = next(
            (line for line in iter(lambda: lines.readline(HEAD_BYTES), b"") if not line.isspace()), b""
        ).strip()
        alone = not any(not line.isspace() for line in iter(lambda: lines.readline(HEAD_BYTES), b""))
    if first in (b"[", b"{"):
        return False
    return not (first.startswith(b"[{") and (alone or first.endswith(b",")))


def _object_layout(file: RawFile, window: Window) -> Layout:
    """The layout of a file that begins with an object: a row itself, unless it is alone and has a list of rows."""
    line, names, lists = window.line, [], []
    goes_on = on_one_line = False
    try:
        for key in keys(window):
            names.append(key)
            if window.skip("["):
                if window.peek() == "{":
                    lists.append(key)
                _leave_list(window)
            else:
                window.value()
        on_one_line = window.line == line
        goes_on = bool(window.peek())
    except (CutOff, ValueError, RecursionError):
        pass  # reading will meet the same and say it; what was seen until here decides
    if goes_on and on_one_line:
        return Layout(Shape.LINES)
    if goes_on or not lists or not set(FIELDS).isdisjoint(names):
        return Layout(Shape.OBJECTS)
    if len(lists) > 1:
        what = f"{file.name}: one JSON object with several lists of rows: {', '.join(lists)}"
        raise BadData(what, "save the one you want as an array of its own")
    return Layout(Shape.WRAPPED, lists[0])


def _leave_list(window: Window) -> None:
    """Pass over what is left of a list, an element at a time: it may be larger than memory."""
    while not window.skip("]"):
        window.value()
        window.skip(",")
