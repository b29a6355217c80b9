from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from ftcli.metrics.plots import COLOURS, Point, bars, dots, lines

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
