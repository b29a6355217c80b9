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
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

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
HISTOGRAM_SIZE, TICKS = (3.6, 2.0), 4
TRACK_SIZE = (4.4, 2.1)
CROWDED = 0.9
"""Beyond this part of a histogram's axis a tick would run into that of the last edge."""


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
            marker = "o" if len(values) == 1 else None
            colour = SERIES[number % len(SERIES)]
            axes.plot(
                *zip(*values, strict=True), color=colour, linewidth=1.6, label=name, marker=marker, markersize=4.5
            )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.tick_params(length=0, labelcolor=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


class Line(NamedTuple):
    """A curve of ``(x, y)``, where a y of None leaves a gap; ``spread`` is half the height of a band around it, point by point.
    ``is_marked``: few points, each drawn as a dot."""

    label: str
    points: Sequence[tuple[float, float | None]]
    spread: Sequence[float | None] | None = None
    is_marked: bool = False


def track(lines: Sequence[Line], *, x_label: str, is_share: bool = False) -> str:
    """Curves over training in one small picture, each in its own colour; shares are drawn from 0 to 1."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=TRACK_SIZE, layout="constrained")
        axes = figure.subplots()
        for line, colour in zip(lines, SERIES, strict=False):
            x = [place for place, _ in line.points]
            y = np.array([np.nan if value is None else value for _, value in line.points])
            marker = "o" if line.is_marked or len(x) == 1 else None
            axes.plot(x, y, color=colour, linewidth=1.6, label=line.label, marker=marker, markersize=4.5)
            if line.spread is not None:
                half = np.array([np.nan if value is None else value for value in line.spread])
                axes.fill_between(x, y - half, y + half, color=colour, alpha=0.16, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelcolor=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if is_share:
            axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(x_label)
        if len(lines) > 1:
            axes.legend(
                frameon=False, fontsize=8, ncols=len(lines), loc="lower left", bbox_to_anchor=(0, 1), borderpad=0.2
            )
        return _svg(figure)


def outlines(edges: Sequence[float], shares: Mapping[str, Sequence[float]], *, x_label: str) -> str:
    """Distributions over the same bins on top of each other: the first filled in grey, the others as lines.

    ``edges`` are one more than the shares of each.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _small()
        for number, (label, values) in enumerate(shares.items()):
            if number == 0:
                axes.stairs(values, edges, fill=True, color=BASE, alpha=0.45, label=label)
            else:
                axes.stairs(values, edges, color=SERIES[number - 1], linewidth=1.8, label=label)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel(x_label)
        axes.legend(
            frameon=False, fontsize=8, ncols=len(shares), loc="lower left", bbox_to_anchor=(0, 1), borderpad=0.2
        )
        return _svg(figure)


def histogram(edges: Sequence[float], counts: Sequence[int], *, limit: float | None, x_label: str) -> str:
    """Rows by length as SVG, with a dashed line at ``limit`` if that lies within the edges.

    ``edges`` are one more than ``counts`` and rise. All bins are drawn equally wide, so that edges in powers of two show
    short and long rows alike.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=HISTOGRAM_SIZE, layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(edges))
        axes.stairs(counts, places, fill=True, color=ACCENT)
        if limit is not None and edges[0] <= limit <= edges[-1]:
            place = float(np.interp(limit, edges, places))
            axes.axvline(place, color=SERIES[4], linewidth=1.4, linestyle=(0, (4, 3)))
            axes.annotate(
                f"max_length {limit:,.0f}",
                (place, 1.02),
                xycoords=("data", "axes fraction"),
                ha="right" if place > len(counts) / 2 else "left",
                va="bottom",
                color=SERIES[4],
            )
        ticks = tick_values(edges)
        axes.set_xticks(np.interp(ticks, edges, places), [f"{value:,.0f}" for value in ticks])
        axes.set_xlim(0, len(counts))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelcolor=MUTED)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel(x_label)
        axes.set_ylabel("rows")
        return _svg(figure)


def signed(edges: Sequence[float], counts: Sequence[int], *, x_label: str, y_label: str) -> str:
    """A histogram of which one edge is 0: what lies below it is drawn as bad, what lies above as good."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _small()
        is_bad = np.array(edges[:-1]) < 0
        for colour, which in ((SERIES[4], is_bad), (SERIES[2], ~is_bad)):
            axes.stairs(np.where(which, counts, 0), edges, fill=True, color=colour)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return _svg(figure)


def reliability(bins: Sequence[tuple[float, float, int]], *, x_label: str, y_label: str) -> str:
    """Points of (probability said, share that came true, cases), larger for more cases, beside the line where both are equal."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _small()
        axes.plot([0.5, 1.0], [0.5, 1.0], color=BASE, linewidth=1.0, linestyle=(0, (3, 3)))
        most = max(cases for _, _, cases in bins)
        said, true = [point[0] for point in bins], [point[1] for point in bins]
        axes.plot(said, true, color=ACCENT, linewidth=1.2)
        axes.scatter(said, true, s=[12 + 60 * cases / most for _, _, cases in bins], color=ACCENT, linewidths=0)
        axes.set_xlim(0.49, 1.01)
        axes.set_ylim(min(0.49, *true) - 0.02, 1.03)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return _svg(figure)


def _small() -> tuple[Figure, Axes]:
    figure = Figure(figsize=TRACK_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def tick_values(edges: Sequence[float]) -> list[float]:
    """Round numbers between evenly spaced edges, with the last edge if its bin is wider; of other edges, some of themselves."""
    widths = np.diff(edges)
    is_even = np.abs(widths - widths[0]) <= 1  # whole numbers between which rounding may have chosen
    if not is_even[:-1].all():
        return [float(edge) for edge in edges[:: -(-len(edges) // (TICKS + 1))]]
    top = edges[-1] if is_even[-1] else edges[-2]
    ticks = [float(value) for value in MaxNLocator(TICKS).tick_values(edges[0], top) if edges[0] <= value <= top]
    return ticks if is_even[-1] else [*(value for value in ticks if value < CROWDED * top), float(edges[-1])]


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
