"""Oracles: maximum likelihood by iteratively reweighted least squares (McCullagh and Nelder 1989), and planted causes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from ftcli.metrics.win_rates import length_controlled, length_correlation

PAIRS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]), st.integers(-500, 500)), min_size=2, max_size=40
)


def reweighted(preferences: Any, longer_by: Any) -> float:
    """sigma of the intercept by Fisher scoring, without a ridge."""
    wanted, difference = np.asarray(preferences, float), np.asarray(longer_by, float)
    design = np.stack([np.ones(len(wanted)), np.tanh(difference / difference.std())], axis=1)
    b = np.zeros(2)
    for _ in range(50):
        fitted = expit(design @ b)
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        b += np.linalg.solve(information, design.T @ (wanted - fitted))
    return float(expit(b[0]))


def planted(length: float, quality: float, *, bias: float, n: int = 4000, seed: int = 0) -> tuple[Any, Any]:
    """Verdicts of a judge with logit ``quality + length * (d / 100)``, d normal about ``bias`` with deviation 100."""
    rng = np.random.default_rng(seed)
    longer_by = rng.normal(bias, 100, n)
    return (rng.random(n) < expit(quality + length * longer_by / 100)).astype(float), longer_by


@pytest.mark.parametrize(("length", "quality"), [(1.2, 0.0), (0.0, 0.8), (0.7, -0.5), (-1.0, 0.3)])
def test_the_fit_is_that_of_reweighted_least_squares(length: float, quality: float) -> None:
    pairs = planted(length, quality, bias=30, n=500)
    assert length_controlled(*pairs) == pytest.approx(reweighted(*pairs), abs=1e-4)


def test_a_win_that_is_all_length_is_taken_away() -> None:
    """A judge that sees nothing but length, and a model whose answers are longer: 0.63 raw is a draw at equal lengths."""
    preferences, longer_by = planted(1.2, 0.0, bias=60)
    assert preferences.mean() == pytest.approx(0.63, abs=0.02)
    assert length_controlled(preferences, longer_by) == pytest.approx(0.5, abs=0.03)


def test_a_win_by_quality_is_left_though_the_answers_are_longer() -> None:
    preferences, longer_by = planted(0.0, 0.8, bias=60)
    assert length_controlled(preferences, longer_by) == pytest.approx(float(expit(0.8)), abs=0.03)


def test_preferences_that_length_does_not_tell_keep_their_win_rate() -> None:
    """Each difference has the same preferences: the slope is 0 and the rest the mean."""
    assert length_controlled([1, 1, 0, 1] * 50, [10] * 100 + [-30] * 100) == pytest.approx(0.75, abs=1e-3)


def test_equal_lengths_keep_the_win_rate() -> None:
    assert length_controlled([1, 0.5, 0, 1], [0, 0, 0, 0]) == 0.625


def test_without_variation_of_length_nothing_can_be_said() -> None:
    assert length_controlled([1, 0, 1], [7, 7, 7]) is None
    assert length_controlled([], []) is None


def test_a_length_that_separates_the_preferences_has_an_answer() -> None:
    assert length_controlled([1, 1, 0, 0], [50, 60, -50, -60]) == pytest.approx(0.5, abs=1e-6)


@given(PAIRS)
def test_swapping_the_models_turns_the_rate_round(pairs: list[tuple[float, int]]) -> None:
    preferences, longer_by = zip(*pairs, strict=True)
    found = length_controlled(preferences, longer_by)
    swapped = length_controlled([1 - value for value in preferences], [-more for more in longer_by])
    if found is None:
        assert swapped is None
    else:
        assert swapped == pytest.approx(1 - found, abs=1e-4)


def test_the_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    longer_by = rng.integers(-9, 9, 40).tolist()
    preferences = [float(expit(more / 5 + rng.normal())) for more in longer_by]
    ranks = [stats.rankdata(values) for values in (preferences, longer_by)]
    assert length_correlation(preferences, longer_by) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert length_correlation([0.1, 0.2, 0.9], [-5, 1, 70]) == pytest.approx(1.0)


@pytest.mark.parametrize("pairs", [([], []), ([1, 0], [1, 2]), ([0.5, 0.5, 0.5], [1, 2, 3]), ([1, 0, 1], [4, 4, 4])])
def test_what_does_not_vary_has_no_correlation(pairs: tuple[list[float], list[float]]) -> None:
    assert length_correlation(*pairs) is None
