"""The text of a JSON file, read a piece at a time, as a window in which values are found one after the other.

The standard library's decoder finds where a value ends; a value that the window cuts is decoded again after reading on.
The window grows by its own size each time, so a value of any size costs a few times its length, not its square.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

PIECE_BYTES = 2**20
SPACE = re.compile(r"[ \t\r\n]*")
COMMAS = re.compile(r"[ \t\r\n,]*")
LONGEST_WORD = len("-Infinity")
FINDER = json.JSONDecoder(parse_int=bool, parse_float=bool)
"""Values are looked at by `json_row`; a conversion here could only fail, as it does for numbers of 5,000 digits."""


class CutOff(Exception):
    """The text ends inside a value."""


class Window:
    """``file`` is in ``encoding``; bytes that are not become lone surrogates, as in `RawFile.open_text`."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._text = ""
        self._at = 0
        self._lines = 1
        self._space = "\n"  # the beginning of a file counts as that of a line

    @property
    def line(self) -> int:
        """The line, counted from 1, in which the next value or sign stands."""
        return self._lines + self._text.count("\n", 0, self._at)

    def peek(self, *, commas: bool = False) -> str:
        """The next character that is no white space, nor a comma if ``commas`` are passed over; empty at the end."""
        gap = COMMAS if commas else SPACE
        while True:
            start, self._at = self._at, gap.match(self._text, self._at).end()  # type: ignore[union-attr]
            self._space += self._text[start : self._at]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, *signs: str) -> bool:
        """Pass over one of ``signs`` if it comes next."""
        if self.peek() not in signs:
            return False
        self._at += 1
        self._space = ""
        return True

    def value(self) -> str:
        """The text of the next value. Raises `CutOff`, or `ValueError` or `RecursionError` if it is no JSON."""
        self.peek()
        while True:
            try:
                _, end = FINDER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                near_end = error.pos > len(self._text) - LONGEST_WORD or error.msg.startswith("Unterminated string")
                if near_end and self._more():
                    continue
                text = self._text.rstrip()
                if not near_end or (error.pos < len(text) and text.endswith(("]", "}"))):
                    raise
                raise CutOff from None
            if end > len(self._text) - len(".0e") and self._more():
                continue  # a number may go on
            start, self._at, self._space = self._at, end, ""
            return self._text[start:end]

    def rest(self, limit: int) -> str:
        """What comes next, up to ``limit`` characters of it."""
        return self._text[self._at : self._at + limit]

    def skip_broken(self, limit: int) -> tuple[str, bool]:
        """Pass over a value that is no JSON, up to the next object that begins a line with the same indent.

        Its text, up to ``limit`` characters, and whether there is such an object; none if the value itself begins no line.
        """
        raw, begin = self.rest(limit), self._at
        _, newline, indent = self._space.rpartition("\n")
        start = re.compile(rf"\n{re.escape(indent)}\{{")
        while newline:
            found = start.search(self._text, self._at)
            if found:
                self._at, self._space = found.end() - 1, newline + indent
                return raw[: found.start() - begin], True
            self._at = max(self._at, len(self._text) - len(indent) - 2)  # the next one may begin inside the window
            begin -= self._at
            if not self._more():
                break
        return raw, False

    def _more(self) -> bool:
        """Read on. What was passed over is forgotten."""
        rest = self._text[self._at :]
        piece, data = "", b"unread"
        while data and not piece:  # a few bytes may be no character yet
            data = self._file.read(max(PIECE_BYTES, len(rest)))
            piece = self._decoder.decode(data, not data)
        if piece:
            self._lines += self._text.count("\n", 0, self._at)
            self._text, self._at = rest + piece, 0
        return bool(piece)


def keys(window: Window) -> Iterator[str]:
    """The keys of the object that comes next; the caller passes over the value of each. Raises what `Window.value` does."""
    window.skip("{")
    while not window.skip("}"):
        key = json.loads(window.value())
        if not isinstance(key, str) or not window.skip(":"):
            raise ValueError("no key and colon")
        yield key
        if not window.skip(",") and window.peek() != "}":
            raise ValueError("neither comma nor end of the object")
