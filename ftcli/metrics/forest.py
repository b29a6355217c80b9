"""Forest plots as inline SVG: one small drawing for each change, with its own scale and no change in the middle.

Written by hand and not by a plotting library: places are percentages, so that a drawing fills whatever column it is put into
without stretching its text, and colours come from the page.
"""

from __future__ import annotations

import math

from markupsafe import Markup, escape

HEIGHT, MIDDLE = 34, 12
ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
FACTORS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)


def reach(low: float, high: float, margin: float | None, *, is_log: bool = False) -> float:
    """Half the width of a scale around zero that shows the interval and the margin, and whose ends are round.

    ``is_log``: the values are logarithms of factors, and the end is that of a round factor. Where all is zero it is 1.
    """
    most = max(abs(low), abs(high), margin or 0.0)
    if most == 0.0:
        return 1.0
    if is_log and most <= math.log(FACTORS[-1]):
        return math.log(next(factor for factor in FACTORS if most <= math.log(factor)))
    scale = 10.0 ** math.floor(math.log10(most))
    return next((step for step in ROUND if most <= step * scale), 10.0) * scale


def forest_row(
    change: float, low: float, high: float, *, half: float, margin: float | None, ends: tuple[str, str], label: str
) -> Markup:
    """A change and its interval, oriented so that the right is better, on a scale from ``-half`` to ``half``.

    The band is ``margin`` to both sides of zero, within which a change does not matter. ``ends`` stand at the two ends of the
    scale, and ``label`` says the same as the drawing to who cannot see it.
    """

    def place(value: float) -> str:
        return f"{50 + 50 * max(-1.0, min(1.0, value / half)):.2f}%"

    band = ""
    if margin:
        start, end = (50 + 50 * max(-1.0, min(1.0, value / half)) for value in (-margin, margin))
        band = f'<rect class="band" x="{start:.2f}%" y="2" width="{end - start:.2f}%" height="{2 * MIDDLE - 4}"/>'
    return Markup(
        f'<svg class="strip" width="100%" height="{HEIGHT}" role="img" aria-label="{escape(label)}">{band}'
        f'<line class="axis" x1="0" x2="100%" y1="{2 * MIDDLE - 1}" y2="{2 * MIDDLE - 1}"/>'
        f'<line class="zero" x1="50%" x2="50%" y1="0" y2="{2 * MIDDLE - 1}"/>'
        f'<line class="interval" x1="{place(low)}" x2="{place(high)}" y1="{MIDDLE}" y2="{MIDDLE}"/>'
        f'<circle cx="{place(change)}" cy="{MIDDLE}" r="4.5"/>'
        f'<text x="0" y="{HEIGHT - 1}">{escape(ends[0])}</text>'
        f'<text x="100%" y="{HEIGHT - 1}" text-anchor="end">{escape(ends[1])}</text></svg>'
    )
