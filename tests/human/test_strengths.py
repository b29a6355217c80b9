from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ftcli.human.strengths import bradley_terry, davidson, fit_bradley_terry, fit_davidson
from tests.human.simulated import items, says

WON = np.array([[0, 10, 8], [25, 0, 12], [30, 20, 0]], dtype=float)  # base, sft, ppo
TIED = np.array([[0, 15, 12], [15, 0, 18], [12, 18, 0]], dtype=float)


def test_bradley_terry_with_half_ties():
    assert fit_bradley_terry(WON + TIED / 2, 0) == pytest.approx([0, 0.619904, 0.943486], abs=1e-6)


def test_davidson_strengths_and_ties():
    beta, nu, loss = fit_davidson(WON, TIED, 0)
    assert beta == pytest.approx([0, 0.925726, 1.408689], abs=1e-5)
    assert nu == pytest.approx(0.965823, abs=1e-5)
    assert loss == pytest.approx(152.827559, abs=1e-6)


def test_equal_sources_tie_as_often_as_davidson_s_parameter_says():
    _, nu, _ = fit_davidson(np.array([[0, 30], [30, 0]]), np.array([[0, 40], [40, 0]]), 0)
    assert nu / (2 + nu) == pytest.approx(0.4)


def test_judgements_give_the_counts():
    thirty = items(30)
    votes = [says(item, "ann", *((2, 1) if i < 20 else (1, 2) if i < 26 else (1, 1))) for i, item in enumerate(thirty)]
    base, other = bradley_terry(thirty, votes, prior=0)
    assert (base.beta, base.low, base.high, base.elo) == (0, 0, 0, 0)
    assert other.beta == pytest.approx(math.log(22 / 8))  # 20 wins and 4 half ones against 6 and 4 half ones
    assert other.items == 30
    assert other.low < other.beta < other.high
    found = davidson(thirty, votes, prior=0)
    assert found is not None
    assert found.strengths["b"] == pytest.approx(math.log(20 / 6), abs=1e-5)  # ties carry no strength of two sources
    assert found.nu == pytest.approx(4 / math.sqrt(20 * 6), abs=1e-5)


def test_odds_of_ten_to_one_are_400_points():
    eleven = items(11)
    votes = [says(item, "ann", *((2, 1) if i else (1, 2))) for i, item in enumerate(eleven)]
    assert bradley_terry(eleven, votes, prior=0)[1].elo == pytest.approx(400)


def test_undefeated_source_is_finite_with_the_interval_of_jeffreys():
    fifty = items(50)
    _, best = bradley_terry(fifty, [says(item, "ann", 2, 1) for item in fifty], resamples=2000)
    assert best.beta == pytest.approx(math.log(50.5 / 0.5))
    low, high = stats.beta.ppf([0.025, 0.975], 50.5, 0.5)
    assert best.low == pytest.approx(math.log(low / (1 - low)), abs=0.15)
    assert best.high > math.log(high / (1 - high)) - 1.5  # a long tail: the end itself is a rough one


def test_bootstrap_interval_of_two_sources_is_that_of_jeffreys():
    hundred = items(100)
    votes = [says(item, "ann", *((2, 1) if i < 60 else (1, 2))) for i, item in enumerate(hundred)]
    _, second = bradley_terry(hundred, votes, resamples=4000)
    ends = stats.beta.ppf([0.025, 0.975], 60.5, 40.5)
    assert (second.low, second.high) == pytest.approx(tuple(np.log(ends / (1 - ends))), abs=0.04)


def test_sources_that_never_met_are_on_one_scale():
    four = items(20, "abc")
    four = [type(item)(item.id, [], item.candidates[i % 2 : i % 2 + 2]) for i, item in enumerate(four)]  # a-b or b-c
    votes = [says(item, "ann", *((2, 1) if i % 8 < 6 else (1, 2))) for i, item in enumerate(four)]
    a, b, c = bradley_terry(four, votes, resamples=50)
    assert a.beta < b.beta < c.beta
    assert (a.items, b.items, c.items) == (10, 20, 10)


def test_nothing_judged_has_no_strengths():
    assert bradley_terry(items(3), []) == []
    assert davidson(items(3), []) is None


def test_intervals_cover_at_their_rate():
    """60 rankings of three answers by Plackett's and Luce's model, in which each two follow Bradley and Terry's."""
    rng, truth, sixty, inside = np.random.default_rng(0), np.array([0, 0.5, 1.0]), items(60, "abc"), 0
    for trial in range(40):
        merits = truth + rng.gumbel(size=(60, 3))
        ranks = 1 + np.argsort(np.argsort(-merits, axis=1), axis=1)
        votes = [says(item, "ann", *row.tolist()) for item, row in zip(sixty, ranks, strict=True)]
        found = bradley_terry(sixty, votes, resamples=80, seed=trial)[1:]
        inside += sum(one.low <= beta <= one.high for one, beta in zip(found, truth[1:], strict=True))
    assert 0.88 <= inside / 80 <= 0.99
