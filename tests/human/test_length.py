from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from ftcli.human.length import length_controlled, length_effect
from ftcli.human.scores import Score
from ftcli.metrics import win_rates


def test_longer_answers_that_win_are_counted():
    lengths = [10, 10, -10, -10, 0, 10]
    outcomes = [1, 1, -1, 1, 1, 0]  # longer, longer, longer, shorter, no length, no winner
    found = length_effect([Score(f"i{i}", o, 1, d) for i, (o, d) in enumerate(zip(outcomes, lengths, strict=True))])
    assert (found.items, found.longer, found.p) == (4, 0.75, 0.625)
    assert (found.low, found.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert found.text().startswith("The longer answer wins 0.750 [0.301, 0.954] of 4 decided items. At equal lengths")


def test_preference_for_length_alone_is_taken_out():
    rng = np.random.default_rng(0)
    longer_by = rng.normal(80, 100, 4000)
    wins = (rng.random(4000) < expit(1.3 * np.tanh(longer_by / 100))).astype(float)
    found = length_controlled(wins.tolist(), longer_by.tolist())
    assert found is not None
    assert wins.mean() > 0.6
    assert found[0] == pytest.approx(0.5, abs=0.03)
    assert found[1] < 0.5 < found[2]


def test_controlled_rate_is_the_one_of_reward_models():
    """The reports of human and of automated preferences show the same figure for the same data."""
    rng = np.random.default_rng(2)
    longer_by, preferences = rng.normal(20, 90, 200).tolist(), rng.choice([0, 0.5, 1], 200, p=[0.3, 0.2, 0.5]).tolist()
    found = length_controlled(preferences, longer_by)
    assert found is not None
    assert found[0] == pytest.approx(win_rates.length_controlled(preferences, longer_by), abs=1e-5)


def test_two_lengths_are_two_shares():
    """With d = 1 or -1 the regression has a parameter a share: 8 of 10 and 5 of 10, so b0 is the mean of their log odds."""
    wins = [1] * 8 + [0] * 2 + [1] * 5 + [0] * 5
    found = length_controlled(wins, [1] * 10 + [-1] * 10)
    assert found is not None
    assert found[0] == pytest.approx(expit(np.log(4) / 2), abs=1e-3)


def test_interval_of_many_wins_is_wald_s():
    """Where length explains nothing, the log odds of 1,200 wins of 2,000 have the variance 1 / (n p (1 - p))."""
    found = length_controlled([1] * 600 + [0] * 400 + [1] * 600 + [0] * 400, [1] * 1000 + [-1] * 1000)
    assert found is not None
    middle, half = np.log(0.6 / 0.4), 1.959964 / np.sqrt(2000 * 0.6 * 0.4)
    assert found == pytest.approx((0.6, expit(middle - half), expit(middle + half)), abs=1e-4)


def test_lengths_without_variation_say_nothing():
    assert length_controlled([1, 0, 1], [5, 5, 5]) is None
    assert length_controlled([], []) is None
    found = length_effect([Score("i", 1, 1, 5), Score("j", 1, 1, 5)])
    assert (found.longer, found.controlled) == (1, None)
    assert "cannot be told" in found.text()
    assert length_effect([Score("i", 1, 1, 0)]).text() == "No decided item has answers of unequal length."


def test_wins_without_a_loss_have_a_finite_lower_end():
    found = length_controlled([1.0] * 20, np.linspace(-50, 60, 20).tolist())
    assert found is not None
    assert 0.8 < found[1] < found[0]
    assert found[2] == pytest.approx(1)


def test_controlled_interval_covers_at_its_rate():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(100):
        longer_by = rng.normal(30, 100, 150)
        chance = expit(0.4 + np.tanh(longer_by / longer_by.std()))
        found = length_controlled((rng.random(150) < chance).astype(float).tolist(), longer_by.tolist())
        assert found is not None
        inside += found[1] <= expit(0.4) <= found[2]
    assert inside >= 88
