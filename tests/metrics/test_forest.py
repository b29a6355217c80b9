from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from ftcli.metrics.forest import forest_row, reach


def drawn(**changed: object) -> ElementTree.Element:
    given = {"half": 0.2, "margin": 0.05, "ends": ("-0.2", "+0.2"), "label": "ROUGE-L"} | changed
    return ElementTree.fromstring(str(forest_row(0.1, 0.05, 0.15, **given)))  # type: ignore[arg-type]


def part(svg: ElementTree.Element, name: str) -> dict[str, str]:
    return next(one.attrib for one in svg if name in (one.get("class"), one.tag))


def test_no_change_is_in_the_middle_and_the_rest_to_scale():
    svg = drawn()
    assert part(svg, "zero")["x1"] == "50%"
    assert part(svg, "circle")["cx"] == "75.00%"  # half of the way from the middle to the right end
    assert (part(svg, "interval")["x1"], part(svg, "interval")["x2"]) == ("62.50%", "87.50%")
    assert (part(svg, "band")["x"], part(svg, "band")["width"]) == ("37.50%", "25.00%")


def test_without_a_margin_there_is_no_band():
    assert not [one for one in drawn(margin=None) if one.get("class") == "band"]


def test_what_lies_beyond_the_scale_ends_at_its_end():
    assert part(drawn(half=0.1), "interval")["x2"] == "100.00%"


def test_texts_are_escaped_and_said_to_who_cannot_see():
    svg = drawn(label='<b>"x"', ends=("<", ">"))
    assert svg.get("aria-label") == '<b>"x"'
    assert [one.text for one in svg if one.tag == "text"] == ["<", ">"]


@pytest.mark.parametrize(
    ("low", "high", "margin", "half"),
    [
        (0.028, 0.0715, 0.01, 0.08),
        (-9.3, 2.0, None, 10.0),
        (-0.001, 0.001, 0.05, 0.05),
        (0.0, 0.0, None, 1.0),
        (-63.1, -50.2, None, 80.0),
    ],
)
def test_a_scale_ends_at_a_round_number_beyond_all_that_is_drawn(low, high, margin, half):
    assert reach(low, high, margin) == pytest.approx(half)


def test_a_scale_of_factors_ends_at_a_round_factor():
    assert math.exp(reach(math.log(0.351), math.log(0.398), None, is_log=True)) == pytest.approx(3.0)
    assert math.exp(reach(-0.001, 0.001, math.log(1.02), is_log=True)) == pytest.approx(1.02)
    assert reach(0.0, math.log(40.0), None, is_log=True) == pytest.approx(4.0)  # beyond factors of ten


def test_a_drawing_brings_no_colour_and_no_address_of_its_own():
    assert not re.search(r"#|http|style", str(forest_row(0, 0, 0, half=1, margin=0.1, ends=("", ""), label="")))
