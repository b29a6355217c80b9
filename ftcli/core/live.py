"""What a terminal shows of a running stage: its bars, and below them its main metric as a curve."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderHook, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import ControlType, Segment
from rich.table import Column
from rich.text import Text

from ftcli.core.curve import MARK, Point, draw, figure, thinned
from ftcli.core.events import Event

REDRAWS_PER_S = 4
RATE_OVER_S = 3600.0
"""Time left comes from the rate over this long: a step may take minutes."""

CURVES = {"train/loss": "val/loss", "objective/scores": "eval/score"}
"""The metric that is drawn, the first of these that a stage sends, and the one marked on its curve."""
BESIDE = {
    "train/lr": "lr",
    "train/learning_rate": "lr",
    "objective/kl": "kl",
    "rollout/length_mean": "length",
    "policy/entropy_avg": "entropy",
    "val/explained_variance": "ev",
    "perf/mfu": "mfu",
}
MEMORY = "perf/peak_memory_bytes"

COLUMNS, ROWS = 70, 5
"""The most that the curve takes with its labels, and its height."""
SHORT_BAR, LONG_BAR, BESIDE_BAR = 4, 24, 70
"""Columns of a bar, and of what usually stands beside it."""
MOST_POINTS = 2000
ECHO = len("^C") + 1
"""Columns left free at the right: what a terminal echoes there would else begin a row that nobody counts."""


class Curve:
    """The main metric of a stage over its steps."""

    def __init__(self) -> None:
        self._name = ""
        self._points: list[Point] = []
        self._marks: list[Point] = []
        self._beside: dict[str, str] = {}
        self.is_hidden = False

    def add(self, event: Event) -> None:
        self._name = self._name or next((name for name, mark in CURVES.items() if name in event or mark in event), "")
        mark = CURVES.get(self._name, "")
        if self._name in event:
            self._points.append((event["step"], _finite(event[self._name])))
        if mark in event:
            self._marks.append((event["step"], _finite(event[mark])))
            self._beside[mark] = f"{MARK} {mark} {_text(event[mark])}"
        for name, label in BESIDE.items():
            if name in event:
                self._beside[label] = f"{label} {_text(event[name])}"
        if event.get(MEMORY):
            self._beside[MEMORY] = f"{event[MEMORY] / 1e9:.1f} GB"
        if len(self._points) > MOST_POINTS:
            self._points = thinned(self._points)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.is_hidden or options.ascii_only or console.height < 2 * ROWS:
            return
        # Copies: this runs in the thread that redraws, while `add` goes on.
        points, marks, beside = list(self._points), list(self._marks), list(self._beside.items())
        width = options.max_width - 2
        lines = draw(points, marks, min(width, COLUMNS), ROWS)
        if lines:
            order = [CURVES[self._name], *BESIDE.values()]
            beside.sort(key=lambda item: order.index(item[0]) if item[0] in order else len(order))
            lines += _filled([self._name, *(text for _, text in beside)], width)
            yield Text("\n".join(f"  {line}" for line in lines), no_wrap=True, overflow="ellipsis")


def _filled(parts: list[str], width: int) -> list[str]:
    """``parts`` beside each other in lines of at most ``width``, each whole."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _text(value: Any) -> str:
    return "-" if value is None else figure(value)


class LiveView(RenderHook):
    """Bars and curve, redrawn in place until `stop`. The first `move` starts it.

    In a terminal made narrower its lines take more rows than were drawn, which rich would leave
    behind; as a hook of rich, called between taking away and drawing anew, it takes those away too.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._curve = Curve()
        self._bar = BarColumn()
        self._progress = Progress(
            TextColumn("  {task.description}"),
            self._bar,
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[shown]}", table_column=Column(no_wrap=True, ratio=1)),
            speed_estimate_period=RATE_OVER_S,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._live: Live | None = None
        self._widths: list[int] = []

    def add(self, event: Event) -> None:
        """Take in a metrics event."""
        self._curve.add(event)

    def move(self, task: str, done: int, total: int, text: str) -> None:
        """Set the bar of ``task``, with ``text`` beside it."""
        if self._live is None:
            self._live = Live(self, console=self._console, refresh_per_second=REDRAWS_PER_S)
            self._console.push_render_hook(self)  # before that of Live, which puts its own around it
            self._live.start()
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, shown=text)
        self._progress.update(self._tasks[task], completed=done, total=total, shown=text)

    def stop(self) -> None:
        """Leave the bars as they are, without the curve."""
        if self._live is not None:
            self._curve.is_hidden = True
            self._live.stop()
            self._console.pop_render_hook()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self._bar.bar_width = min(LONG_BAR, max(SHORT_BAR, console.width - BESIDE_BAR))
        inner = options.update_width(options.max_width - ECHO)
        lines = console.render_lines(Group(self._progress, self._curve), inner, pad=False)
        for line in lines:
            while line and line[-1].text.isspace():
                line.pop()
        self._widths = [Segment.get_line_length(line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        wrapped = sum((width - 1) // self._console.width for width in self._widths if width)
        up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * wrapped
        return [Control(*up), *renderables]
