from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from ftcli.metrics.plots import COLOURS, Line, Point, bars, dots, lines, outlines, reliability, signed, track

POINTS = [
    Point("base", 45.9, 44.0, 48.0, "45.90", is_base=True),
    Point("lora", 17.1, 16.5, 17.9, "17.10"),
    Point("one row", 18.0, None, None, "18.00"),
]
DRAWINGS = {
    "dots": lambda: dots(POINTS),
    "log dots": lambda: dots(POINTS, log=True),
    "bars": lambda: bars(POINTS),
    "lines": lambda: lines({"lora": [(1, 4.5), (2, 3.0)], "sft": [(1, 4.4), (2, 2.5)]}, x_label="step", y_label="loss"),
    "track": lambda: track(
        [
            Line("rollouts", [(1, 0.1), (2, None), (3, 0.5)], [0.1, None, 0.2]),
            Line("held-out", [(0, 0.1), (3, 0.4)], None, True),
        ],
        x_label="rollout",
    ),
    "share": lambda: track([Line("ended", [(1, 0.5)])], x_label="rollout", is_share=True),
    "outlines": lambda: outlines([0, 1, 2], {"rollout 1": [0.5, 0.5], "rollout 9": [0.1, 0.9]}, x_label="score"),
    "reliability": lambda: reliability([(0.55, 0.5, 4), (0.9, 0.7, 9)], x_label="said", y_label="came true"),
}


@pytest.fixture(params=DRAWINGS)
def draw(request):
    return DRAWINGS[request.param]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_a_drawing_is_one_well_formed_svg_that_refers_to_nothing_outside(draw):
    svg = draw()
    ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    assert "http" not in svg.replace("http://www.w3.org/", "")
    assert "<style" not in svg
    assert "<metadata" not in svg


def test_colours_are_variables_of_the_page(draw):
    svg = draw()
    assert "var(--accent)" in svg
    assert not any(colour in svg for colour in COLOURS)
    assert "#ffffff" not in svg


def test_the_same_numbers_give_the_same_bytes(draw):
    assert draw() == draw()


def test_drawing_leaves_matplotlib_as_it_was(draw):
    before = dict(matplotlib.rcParams)
    draw()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("draw_points", [dots, bars])
def test_labels_and_notes_are_text_in_the_given_order(draw_points):
    found = texts(draw_points(POINTS))
    assert [text for text in found if text in ("base", "lora", "one row")] == ["base", "lora", "one row"]
    assert {"45.90", "17.10", "18.00"} <= set(found)


def test_labels_are_neither_markup_nor_mathematics():
    svg = dots([Point("<b>$x_1$</b>", 1.0, None, None, "")])
    assert "<b>" not in svg
    assert "<b>$x_1$</b>" in texts(svg)


def test_bars_of_nothing_are_drawn():
    assert texts(bars([Point("base", 0.0, None, None, "0 B")])) == ["base", "0 B"]


def test_a_curve_has_a_gap_where_nothing_was_measured():
    def strokes(points):
        svg = track([Line("x", points)], x_label="rollout")
        paths = [
            one.get("d") or ""
            for one in ElementTree.fromstring(svg).iter()
            if "var(--accent)" in (one.get("style") or "")
        ]
        return [path.count("M") for path in paths]

    assert strokes([(1, 1.0), (2, 2.0), (3, 1.5), (4, 2.0)]) == [1]
    assert strokes([(1, 1.0), (2, 2.0), (3, None), (4, 2.0), (5, 1.0)]) == [2]


def test_only_several_curves_need_a_legend():
    assert "rollouts" not in texts(track([Line("rollouts", [(1, 0.1), (2, 0.2)])], x_label="rollout"))
    both = texts(track([Line("rollouts", [(1, 0.1), (2, 0.2)]), Line("held-out", [(1, 0.1)], None, True)], x_label="x"))
    assert {"rollouts", "held-out"} <= set(both)


def test_outlines_are_labelled_in_percent():
    found = texts(outlines([0, 1, 2], {"first": [0.5, 0.5], "last": [0.1, 0.9]}, x_label="score"))
    assert {"first", "last", "score", "50%"} <= set(found)


def test_what_is_below_zero_is_drawn_as_bad_and_what_is_above_as_good():
    def heights(svg: str, colour: str) -> float:
        (path,) = re.findall(rf'<path d="([^"]*)"[^>]*fill: var\(--{colour}\)', svg)
        rows = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        return max(rows) - min(rows)

    svg = signed([-2.0, -1.0, 0.0, 1.0], [1, 2, 8], x_label="margin", y_label="pairs")
    assert heights(svg, "series2") == pytest.approx(4 * heights(svg, "series4"), rel=1e-3)
    assert {"margin", "pairs"} <= set(texts(svg))
    assert not any(colour in svg for colour in COLOURS)
