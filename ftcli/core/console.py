"""Show a running stage to people, on stderr: a live bar on a terminal, one plain line every 30 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ftcli.core.events import Event

PLAIN_EVERY_S = 30.0
UNITS = {"tokens_per_s": "tok/s", "rows_per_s": "rows/s", "samples_per_s": "samples/s"}


def shown_text(shown: Mapping[str, float | int | str | None]) -> str:
    """``loss 1.25  310 tok/s`` from the values that a progress event carries."""
    parts = []
    for name, value in shown.items():
        if value is None:
            continue
        text = _figure(value) if isinstance(value, float) else str(value)
        parts.append(f"{text} {UNITS[name]}" if name in UNITS else f"{name} {text}")
    return "  ".join(parts)


def _figure(value: float) -> str:
    """Four digits, but never ``1.235e+04``."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


class Console:
    """Prints decisions, notes and progress. Use as a context manager, so that a live bar is always taken down."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._rich = RichConsole(file=stream or sys.stderr, highlight=False, soft_wrap=True, emoji=False)
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
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
        """Show one event of a stage; metrics events are not shown, their file is the place to look."""
        if event["event"] == "note":
            self._rich.print(f"  {event['text']}", markup=False)
        elif event["event"] == "progress":
            show = self._live if self._rich.is_terminal else self._plain
            show(str(event["task"]), int(event["done"]), int(event["total"]), shown_text(event["shown"]))

    def _live(self, task: str, done: int, total: int, text: str) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
                console=self._rich,
            )
            self._progress.start()
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, shown=text)
        self._progress.update(self._tasks[task], completed=done, total=total, shown=text)

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
        if self._progress is not None:
            self._progress.stop()
        self._progress = None
        self._tasks.clear()
        self._started.clear()
        self._printed.clear()
