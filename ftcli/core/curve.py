"""A small curve of braille characters: each holds 2 by 4 dots, so that 60 columns show 120 points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from statistics import fmean

Point = tuple[int, float | None]
"""``(step, value)``; a value that is None or not finite leaves a gap."""

BLANK = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot in a braille character, by its row and column (Unicode, Braille Patterns)."""

MARK = "o"
"""One column wide in every font; circles and diamonds are not."""


def figure(value: float) -> str:
    """Four digits, but never ``1.235e+04``."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def draw(points: Sequence[Point], marks: Sequence[Point], width: int, height: int) -> list[str]:
    """``height`` lines of the curve and one of steps below it, at most ``width`` columns; none if there is nothing to show.

    Left of it stand the largest and the smallest value, right of it the last one. ``marks`` are points by themselves.
    """
    curve, single = _finite(points), _finite(marks)
    if not curve:
        return []
    values, steps = [value for _, value in curve + single], [step for step, _ in [*points, *marks]]
    low, high, last = min(values), max(values), curve[-1][1]
    first, end = min(steps), max(steps)
    margin = max(len(figure(low)), len(figure(high)))
    columns = width - margin - 3 - len(figure(last))
    if columns < 8 or height < 2:
        return []

    def place(step: int, value: float) -> tuple[int, int]:
        """Column and row of a dot, from the upper left."""
        x = (step - first) / (end - first) if end > first else 0.0
        y = (high - value) / (high - low) if high > low else 0.5
        return round(x * (2 * columns - 1)), round(y * (4 * height - 1))

    cells = [[BLANK] * columns for _ in range(height)]
    for x, y in _dots(points, place):
        cells[y // 4][x // 2] |= DOTS[y % 4][x % 2]
    rows = [[chr(cell) if cell != BLANK else " " for cell in line] for line in cells]
    for x, y in (place(*point) for point in single):
        rows[y // 4][x // 2] = MARK
    left = {0: figure(high), height - 1: figure(low)} if high > low else {height // 2: figure(low)}
    right = {place(*curve[-1])[1] // 4: figure(last)} if high > low else {}
    lines = [
        f"{left.get(index, '').rjust(margin)} {'┤' if index in left else '│'}{''.join(row)} {right.get(index, '')}".rstrip()
        for index, row in enumerate(rows)
    ]
    span = f"{first}{str(end).rjust(columns - len(str(first)))}" if end > first else str(first)
    both_fit = len(str(first)) + len(str(end)) < columns
    return [*lines, " " * (margin + 2) + (span if both_fit else str(end).rjust(columns))]


def _finite(points: Sequence[Point]) -> list[tuple[int, float]]:
    return [(step, value) for step, value in points if value is not None and math.isfinite(value)]


def _dots(points: Sequence[Point], place: Callable[[int, float], tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Dots of the lines between neighbours; points that share a column of dots count as their mean."""
    for known, stretch in groupby(points, key=lambda point: point[1] is not None and math.isfinite(point[1])):
        if not known:
            continue
        placed = [place(*point) for point in _finite(list(stretch))]
        means = [(x, round(fmean(y for _, y in same))) for x, same in groupby(placed, key=lambda dot: dot[0])]
        yield means[0]
        for (x0, y0), (x1, y1) in pairwise(means):
            length = max(x1 - x0, abs(y1 - y0))
            for part in range(1, length + 1):
                yield round(x0 + (x1 - x0) * part / length), round(y0 + (y1 - y0) * part / length)


def thinned(points: Sequence[Point]) -> list[Point]:
    """Half as many points: neighbours become their mean, at the later step."""
    pairs = zip(points[::2], points[1::2], strict=False)
    return [(step, _mean(first, second)) for (_, first), (step, second) in pairs] + list(points[len(points) // 2 * 2 :])


def _mean(first: float | None, second: float | None) -> float | None:
    return first if second is None else second if first is None else (first + second) / 2
