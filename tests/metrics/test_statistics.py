from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ftcli.metrics.statistics import Examples, difference, interval, mean_of, standard_error, wilson

BASE = [0.31, 0.42, 0.55, 0.10, 0.77, 0.63, 0.28, 0.91, 0.44, 0.36, 0.52, 0.49, 0.70, 0.15, 0.83, 0.60, 0.33, 0.47]
BASE += [0.58, 0.66]
TUNED = [0.38, 0.40, 0.61, 0.22, 0.75, 0.70, 0.35, 0.90, 0.50, 0.41, 0.50, 0.58, 0.74, 0.30, 0.85, 0.59, 0.45, 0.49]
TUNED += [0.66, 0.71]


def test_paired_difference_of_twenty_scores():
    found = difference(mean_of(BASE), mean_of(TUNED))
    assert found.delta == pytest.approx(0.0495)
    assert found.se == pytest.approx(0.011180, abs=1e-6)  # s / sqrt(n)
    assert (found.low, found.high) == pytest.approx((0.028, 0.0715), abs=0.002)
    assert found.p == pytest.approx(0.00039864, abs=3e-4)  # all 2^20 sign flips; here 10,000 of them
    assert found.n == 20


def test_sign_flips_of_twelve_differences_are_exact():
    assert difference(mean_of(BASE[:12]), mean_of(TUNED[:12])).p == pytest.approx(0.01367188, abs=1e-8)


def test_permutation_of_a_ratio_exchanges_whole_documents():
    first = Examples(np.array([[10.0, 5.0], [3.0, 2.0], [8.0, 9.0]]))
    second = Examples(np.array([[9.0, 5.0], [2.5, 2.0], [6.0, 9.0]]))

    def ratio(rows: list[tuple[float, float]]) -> float:
        return sum(nll for nll, _ in rows) / sum(tokens for _, tokens in rows)

    pairs = list(zip(first.statistics.tolist(), second.statistics.tolist(), strict=True))
    deltas = [
        ratio([b if keep else a for (a, b), keep in zip(pairs, signs, strict=True)])
        - ratio([a if keep else b for (a, b), keep in zip(pairs, signs, strict=True)])
        for signs in product([True, False], repeat=3)
    ]
    found = difference(first, second)
    assert found.delta == pytest.approx(deltas[0])
    assert found.p == pytest.approx(sum(abs(one) >= abs(deltas[0]) - 1e-12 for one in deltas) / 8)


def test_a_mean_has_the_classical_standard_error():
    assert standard_error(mean_of(BASE)) == pytest.approx(stats.sem(BASE))


def test_intervals_cover_the_truth_as_often_as_they_say():
    draws = np.random.default_rng(3).exponential(size=(120, 60))
    covered = 0
    for number, values in enumerate(draws):
        low, high = interval(mean_of(values.tolist()), confidence=0.9, resamples=400, seed=number)
        covered += low <= 1.0 <= high
    assert 0.8 <= covered / 120 <= 0.97  # 0.9, less what the percentile method loses on skewed data


def test_equal_models_give_false_alarms_at_the_stated_rate():
    rng = np.random.default_rng(5)
    alarms = sum(
        difference(mean_of(rng.normal(size=25).tolist()), mean_of(rng.normal(size=25).tolist()), resamples=300).p < 0.05
        for _ in range(200)
    )
    assert alarms / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_a_model_against_itself_differs_by_exactly_nothing():
    found = difference(mean_of(BASE), mean_of(BASE), resamples=200)
    assert (found.delta, found.se, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 0.0, 1.0)


SCORES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8)


@settings(max_examples=25, deadline=None)
@given(SCORES)
def test_swapping_the_models_flips_the_sign_and_keeps_p(scores: list[tuple[float, float]]):
    first, second = mean_of([a for a, _ in scores]), mean_of([b for _, b in scores])
    there, back = difference(first, second, resamples=200), difference(second, first, resamples=200)
    assert there.delta == pytest.approx(-back.delta)
    assert there.p == pytest.approx(back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_one_example_tells_nothing_about_spread():
    found = difference(mean_of([0.2]), mean_of([0.9]))
    assert found.delta == pytest.approx(0.7)
    assert all(math.isnan(value) for value in (found.se, found.low, found.high, found.p))
    assert all(math.isnan(value) for value in (*interval(mean_of([0.2])), standard_error(mean_of([0.2]))))


def test_different_numbers_of_examples_cannot_be_paired():
    with pytest.raises(ValueError, match="2 examples against 1"):
        difference(mean_of([1.0, 2.0]), mean_of([1.0]))


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (0, 10, (0.0, 0.277533)),
        (7, 10, (0.396778, 0.892209)),
        (60, 100, (0.502003, 0.690599)),
        (115, 200, (0.505709, 0.641464)),
    ],
)
def test_wilson_intervals(successes: int, n: int, expected: tuple[float, float]):
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-6)
