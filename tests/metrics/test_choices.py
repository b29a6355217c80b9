from __future__ import annotations

import math

import pytest

from ftcli.metrics.choices import chance_p, pick


def test_the_likeliest_for_its_length_is_picked_and_not_the_likeliest():
    assert pick([8.0, 9.0, 12.0], [4, 4, 8]) == 2  # 2.0, 2.25 and 1.5 nats a byte


def test_of_equal_choices_the_first_is_picked():
    assert pick([3.0, 6.0, 3.0], [1, 2, 1]) == 0


def test_a_choice_that_has_no_number_is_not_picked_before_one_that_has():
    assert pick([math.nan, 50.0, math.nan], [1, 1, 1]) == 1
    assert pick([7.0, math.inf, math.nan], [1, 1, 1]) == 0


def test_where_no_choice_has_a_number_the_first_is_picked():
    assert pick([math.nan, math.nan], [1, 1]) == 0


@pytest.mark.parametrize(("nll", "sizes"), [([], []), ([1.0], [1, 2]), ([1.0, 2.0], [3, 0])])
def test_choices_without_a_size_are_refused(nll: list[float], sizes: list[int]):
    with pytest.raises(ValueError, match="each needs a size"):
        pick(nll, sizes)


@pytest.mark.parametrize(
    ("right", "n", "chance", "p"),
    [
        (4, 4, 0.25, 1 / 256),  # by hand: (1/4)^4
        (3, 4, 0.25, 13 / 256),  # 4 * 3/256 + 1/256
        (0, 4, 0.25, 1.0),
        (0, 10, 0.0, 1.0),
        (1, 10, 0.0, 0.0),
    ],
)
def test_the_p_of_guessing(right: int, n: int, chance: float, p: float):
    assert chance_p(right, n, chance) == pytest.approx(p, abs=1e-15)
