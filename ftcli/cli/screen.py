"""Answers on stdout while they are written: one below the other, or on a wide terminal two beside each other.

What a model writes is not trusted: characters that steer a terminal are shown as what they are.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

COLUMNS_FROM = 100
"""Terminal columns from which two answers stand beside each other."""

ECHO = len("^C") + 1
"""Columns left free at the right: what a terminal echoes there would else begin a row that nobody counts."""

JOINERS = "\u200c\u200d"
"""Format characters that Persian, Hindi and emoji are written with; others can reorder or hide text."""


def visible(text: str) -> str:
    """``text`` without characters that a terminal obeys: escape is shown as ``\\x1b``; line breaks and tabs stay."""
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char in "\n\t" or char in JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char
    return ascii(char)[1:-1] if ord(char) < 0x80 or len(ascii(char)) > 3 else char


class Screen:
    """Shows the answers of the models called ``names``; a ``silent`` one shows nothing."""

    def __init__(self, names: Sequence[str], *, silent: bool = False) -> None:
        self._names = names
        self._silent = silent
        if isinstance(sys.stdout, TextIOWrapper):  # where an encoding lacks a character, it is shown as \u1234
            sys.stdout.reconfigure(errors="backslashreplace")
        self._console = Console(file=sys.stdout, highlight=False, emoji=False)
        self._columns: _Columns | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around the answers to one message."""
        wide = self._console.is_terminal and not self._console.is_dumb_terminal and self._console.width >= COLUMNS_FROM
        if self._silent or len(self._names) == 1 or not wide:
            yield
            return
        columns = self._columns = _Columns(self._names)
        with Live(columns, console=self._console, refresh_per_second=8):
            try:
                yield
            finally:
                columns.is_whole = True
                self._columns = None

    def begin(self, place: int) -> None:
        """The model at ``place`` starts to answer."""
        if len(self._names) > 1 and self._columns is None and not self._silent:
            print(f"{self._names[place]}:", flush=True)

    def add(self, place: int, text: str) -> None:
        if self._columns is not None:
            self._columns.texts[place] += visible(text)
        elif not self._silent:
            print(visible(text), end="", flush=True)

    def end(self, place: int) -> None:
        if self._columns is None and not self._silent:
            print("\n" if len(self._names) > 1 and place + 1 < len(self._names) else "", flush=True)


class _Columns:
    """Texts beside each other. While they grow, those last lines of them that fit the terminal."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.texts = [""] * len(names)
        self.is_whole = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table.grid(expand=True, padding=(0, 3, 0, 0))
        for _ in self._names:
            table.add_column(ratio=1, overflow="fold")
        table.add_row(*(Text(name, style="bold") for name in self._names))
        table.add_row(*(Text(text) for text in self.texts))
        lines = console.render_lines(table, options.update_width(options.max_width - ECHO), pad=False)
        room = options.size.height - 1
        for line in lines if self.is_whole or len(lines) <= room else [lines[0], *lines[len(lines) - room + 1 :]]:
            yield from line
            yield Segment.line()
