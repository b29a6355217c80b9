"""A histogram of lengths with the limit marked, drawn as the other plots are (`ftcli.metrics.plots`)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib  # noqa: TID253  (a library of drawing, imported by the page alone)
import numpy as np
from matplotlib.figure import Figure  # noqa: TID253
from matplotlib.ticker import MaxNLocator, StrMethodFormatter  # noqa: TID253

from ftcli.metrics.plots import ACCENT, GRID, MUTED, SERIES, STYLE, _svg
from ftcli.stages.prep.report.text import count

WIDTH, HEIGHT, TICKS = 3.6, 2.0, 4
CROWDED = 0.9
"""Beyond this part of the axis a tick would run into that of the last edge."""
LIMIT_COLOUR = SERIES[4]


def histogram(edges: Sequence[float], counts: Sequence[int], *, limit: float | None, x_label: str) -> str:
    """Rows by length as SVG, with a dashed line at ``limit`` if that lies within the edges.

    ``edges`` are one more than ``counts`` and rise. All bins are drawn equally wide, so that edges in powers of two show
    short and long rows alike.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(edges))
        axes.stairs(counts, places, fill=True, color=ACCENT)
        if limit is not None and edges[0] <= limit <= edges[-1]:
            place = float(np.interp(limit, edges, places))
            axes.axvline(place, color=LIMIT_COLOUR, linewidth=1.4, linestyle=(0, (4, 3)))
            axes.annotate(
                f"max_length {count(limit)}",
                (place, 1.02),
                xycoords=("data", "axes fraction"),
                ha="right" if place > len(counts) / 2 else "left",
                va="bottom",
                color=LIMIT_COLOUR,
            )
        ticks = tick_values(edges)
        axes.set_xticks(np.interp(ticks, edges, places), [count(value) for value in ticks])
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


def tick_values(edges: Sequence[float]) -> list[float]:
    """Round numbers between evenly spaced edges, with the last edge if its bin is wider; of other edges, some of themselves."""
    widths = np.diff(edges)
    is_even = np.abs(widths - widths[0]) <= 1  # whole numbers between which rounding may have chosen
    if not is_even[:-1].all():
        return [float(edge) for edge in edges[:: -(-len(edges) // (TICKS + 1))]]
    top = edges[-1] if is_even[-1] else edges[-2]
    ticks = [float(value) for value in MaxNLocator(TICKS).tick_values(edges[0], top) if edges[0] <= value <= top]
    return ticks if is_even[-1] else [*(value for value in ticks if value < CROWDED * top), float(edges[-1])]
