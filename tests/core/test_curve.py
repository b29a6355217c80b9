from __future__ import annotations

import unicodedata

import pytest

from ftcli.core.curve import draw, figure, thinned

NAN = float("nan")
PLACE_OF_DOT = {1: (0, 0), 2: (0, 1), 3: (0, 2), 7: (0, 3), 4: (1, 0), 5: (1, 1), 6: (1, 2), 8: (1, 3)}
"""Column and row of each numbered dot in a braille cell, as the Unicode names number them."""


def dots(lines: list[str]) -> set[tuple[int, int]]:
    """The dots of a drawing by column and row, read from the names of its characters."""
    found = set()
    for row, line in enumerate(lines[:-1]):
        start = next(place for place, char in enumerate(line) if char in "┤│") + 1
        for column, char in enumerate(line[start:]):
            name = unicodedata.name(char)
            if name.startswith("BRAILLE PATTERN DOTS-"):
                for number in name.removeprefix("BRAILLE PATTERN DOTS-"):
                    x, y = PLACE_OF_DOT[int(number)]
                    found.add((2 * column + x, 4 * row + y))
    return found


def test_two_points_are_joined_from_corner_to_corner() -> None:
    lines = draw([(1, 8.0), (2, 0.0)], [], 13, 2)  # 8 columns: 16 by 8 dots
    assert len(lines) == 3
    found = dots(lines)
    assert {(0, 0), (15, 7)} <= found
    assert sorted({x for x, _ in found}) == list(range(16)), "no hole in the line"
    assert all(abs(y - 7 * x / 15) <= 0.5 for x, y in found)


def test_the_axis_names_largest_smallest_and_last_value_and_the_steps() -> None:
    lines = draw([(501, 2.5), (502, 0.75), (503, 1.25)], [], 40, 5)
    assert lines[0].startswith(" 2.5 ┤")
    assert lines[4].startswith("0.75 ┤")
    [last] = [line for line in lines if line.endswith(" 1.25")]
    assert lines.index(last) == 3, "1.25 lies at 19 * 1.25 / 1.75 = 13.6 dots from the top: dot 14, row 3"
    assert lines[5].split() == ["501", "503"], "a resumed run does not begin at 0"


@pytest.mark.parametrize("hole", [None, NAN, float("inf"), float("-inf")])
def test_a_value_that_is_none_or_not_finite_leaves_a_gap(hole: float | None) -> None:
    points = [(step, 1.0 if step < 6 else 2.0) for step in range(1, 12)]
    whole = dots(draw(points, [], 24, 4))
    holed = dots(draw([*points[:5], (6, hole), *points[6:]], [], 24, 4))
    assert sorted({x for x, _ in whole}) == list(range(38))
    missing = set(range(38)) - {x for x, _ in holed}
    assert missing == set(range(16, 22)), "between steps 5 and 7 of 1 to 11: dots 14.8 and 22.2 of 37"


def test_values_that_share_a_column_are_drawn_as_their_mean() -> None:
    points = [(step, 3.0 * (step % 2)) for step in range(10_000)]
    found = dots(draw(points, [], 30, 4))
    assert {y for _, y in found} <= {7, 8}, "half of 3 is between dots 7 and 8 of 0 to 15"


def test_marks_stand_at_their_step_and_value_and_stretch_the_axis() -> None:
    lines = draw([(0, 1.0), (100, 1.0)], [(50, 3.0), (100, 2.0), (25, NAN)], 66, 5)
    start = lines[0].index("┤") + 1
    assert lines[0].startswith("3 ┤")
    columns = 66 - 5  # "3 ┤" before, " 1" after
    assert lines[0][start:].index("o") in (columns // 2 - 1, columns // 2)
    assert lines[2][start:].index("o") == columns - 1
    assert sum(line.count("o") for line in lines) == 2


def test_one_point_and_a_constant_are_drawn_in_the_middle() -> None:
    for points in ([(3, 2.0)], [(3, 2.0), (4, 2.0)]):
        lines = draw(points, [], 30, 5)
        assert [line.strip() for line in lines].count("│") == 4
        assert lines[2].startswith("2 ┤")
        assert {y for _, y in dots(lines)} == {10}
    assert lines[5].split() == ["3", "4"]


@pytest.mark.parametrize("points", [[], [(1, None)], [(1, NAN), (2, None)]])
def test_without_a_finite_value_nothing_is_drawn(points: list[tuple[int, float | None]]) -> None:
    assert draw(points, [(1, 1.0)], 60, 5) == []


def test_it_never_takes_more_columns_than_given_and_nothing_where_it_cannot_be_read() -> None:
    points = [(step, 12345.6789 / (step + 1)) for step in range(50)]
    for width in range(1, 80):
        lines = draw(points, [(3, -2.5e-7)], width, 4)
        assert all(len(line) <= width for line in lines)
        assert (lines == []) == (width < 24), "'-2.5e-07' or '12346', 3 more, '246.9', and 8 columns of curve"
    assert draw(points, [], 60, 1) == []
    assert draw([(1_000_000, 1.0), (2_000_000, 2.0)], [], 14, 4)[4].split() == ["2000000"]


def test_thinning_keeps_the_last_point_and_halves_the_rest() -> None:
    assert thinned([(1, 1.0), (2, 3.0), (3, None), (4, 5.0), (5, 7.0)]) == [(2, 2.0), (4, 5.0), (5, 7.0)]
    assert thinned([(1, 1.0), (2, None), (3, None), (4, None)]) == [(2, 1.0), (4, None)]
    assert thinned([]) == []


@pytest.mark.parametrize(
    ("value", "text"), [(1.23456, "1.235"), (123456.7, "123457"), (0.0002, "0.0002"), (-3.0, "-3")]
)
def test_figures_have_four_digits(value: float, text: str) -> None:
    assert figure(value) == text
