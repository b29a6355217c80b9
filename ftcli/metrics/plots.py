"""Plots as inline SVG for the report: matplotlib draws, and the page's own style sheet gives colours and font.

Colours are written as placeholders and replaced by CSS variables, so that one drawing serves light and dark; text stays text. No
global state of matplotlib is touched (no pyplot), and the same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

INK, MUTED, GRID, ACCENT, BASE = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = ("#040404", "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04")
COLOURS = {INK: "ink", MUTED: "muted", GRID: "line", ACCENT: "accent", BASE: "base"} | {
    colour: f"series{number}" for number, colour in enumerate(SERIES) if number
}
"""Placeholder to the name of the page's CSS variable."""

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ftcli",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
WIDTH, ROW_HEIGHT, MARGIN = 5.0, 0.34, 0.55  # inches


class Point(NamedTuple):
    """One model's value with its interval (None: unknown); ``note`` stands at the right, ``is_base`` is drawn in grey."""

    label: str
    value: float
    low: float | None
    high: float | None
    note: str
    is_base: bool = False


def dots(points: Sequence[Point], *, log: bool = False) -> str:
    """Values with their intervals, one row a point, the first on top, on a shared axis."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _rows([point.label for point in points], [point.note for point in points])
        for row, point in enumerate(points):
            colour = BASE if point.is_base else ACCENT
            if point.low is not None and point.high is not None:
                axes.plot([point.low, point.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([point.value], [row], "o", color=colour, markersize=6.5)
        base = next((point for point in points if point.is_base), None)
        if base is not None:
            axes.axvline(base.value, color=BASE, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))  # LogLocator has none within a decade
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.margins(x=0.06)
        return _svg(figure)


def bars(points: Sequence[Point]) -> str:
    """Amounts from zero, one row a point."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _rows([point.label for point in points], [point.note for point in points])
        for row, point in enumerate(points):
            axes.barh([row], [point.value], height=0.5, color=BASE if point.is_base else ACCENT)
        axes.set_xlim(left=0, right=max(1e-12, *(point.value for point in points), 0) * 1.02)
        axes.xaxis.set_visible(False)
        return _svg(figure)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str) -> str:
    """Curves of (x, y); at most as many as there are colours are told apart."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, values) in enumerate(series.items()):
            axes.plot(*zip(*values, strict=True), color=SERIES[number % len(SERIES)], linewidth=1.6, label=name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.tick_params(length=0, labelcolor=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def _rows(labels: Sequence[str], notes: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with one row for each label, its note at the right end."""
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * len(labels) + MARGIN), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for row, note in enumerate(notes):
        axes.annotate(
            note, (1.02, row), xycoords=("axes fraction", "data"), va="center", annotation_clip=False, color=INK
        )
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[\w.]+_\d+"', "<g", text)  # names of matplotlib's groups, which repeat from plot to plot
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    text = re.sub(r'style="font: ([\d.]+)px [^;"]*|style="font-size: ([\d.]+)px; font-family: [^;"]*', _own_font, text)
    for colour, name in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def _own_font(style: re.Match[str]) -> str:
    return f'style="font-size: {style[1] or style[2]}px; font-family: inherit'
