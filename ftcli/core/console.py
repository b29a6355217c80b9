"""Show a running stage to people, on stderr: a live view on a terminal, one plain line every 30 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console as RichConsole

from ftcli.core.curve import figure
from ftcli.core.events import Event
from ftcli.core.live import LiveView

PLAIN_EVERY_S = 30.0
UNITS = {"tokens_per_s": "tok/s", "rows_per_s": "rows/s", "samples_per_s": "samples/s"}


def shown_text(shown: Mapping[str, float | int | str | None]) -> str:
    """``loss 1.25  310 tok/s`` from the values that a progress event carries."""
    parts = []
    for name, value in shown.items():
        if value is None:
            continue
        text = figure(value) if isinstance(value, float) else str(value)
        parts.append(f"{text} {UNITS[name]}" if name in UNITS else f"{name} {text}")
    return "  ".join(parts)


class Console:
    """Prints decisions, notes and progress. Use as a context manager, so that a live view is always taken down."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._rich = RichConsole(file=stream or sys.stderr, highlight=False, soft_wrap=True, emoji=False)
        self._view: LiveView | None = None
        self._started: dict[str, tuple[float, int]] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        self._clear()

    def say(self, text: str) -> None:
        self._clear()
        self._rich.print(text, markup=False)

    def sink(self, event: Event) -> None:
        """Show one event of a stage. Of metrics, a terminal shows a curve; their file is the place to look."""
        if self._view is None and self._rich.is_terminal and not self._rich.is_dumb_terminal:
            self._view = LiveView(self._rich)
        if event["event"] == "note":
            self._rich.print(f"  {event['text']}", markup=False)
        elif event["event"] == "metrics" and self._view is not None:
            self._view.add(event)
        elif event["event"] == "progress":
            show = self._plain if self._view is None else self._view.move
            show(str(event["task"]), int(event["done"]), int(event["total"]), shown_text(event["shown"]))

    def _plain(self, task: str, done: int, total: int, text: str) -> None:
        clock = time.monotonic()
        started, first = self._started.setdefault(task, (clock, done))  # a resumed task does not begin at 0
        if done < total and task in self._printed and clock - self._printed[task] < PLAIN_EVERY_S:
            return
        self._printed[task] = clock
        remaining = ""
        if first < done < total:
            remaining = f"  {(clock - started) / (done - first) * (total - done):.0f} s left"
        self._rich.print(f"  {task} {done}/{total}  {text}{remaining}".rstrip(), markup=False)

    def _clear(self) -> None:
        if self._view is not None:
            self._view.stop()
        self._view = None
        self._started.clear()
        self._printed.clear()
