from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize

from ftcli.rl.calibration import calibration, fit_temperature, log_loss, temperature
from ftcli.rl.judged import Judged, PairTable


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def test_log_loss_is_the_bradley_terry_loss_of_torch() -> None:
    margins = np.array([3.0, -2.0, 0.0, 60.0, -60.0])
    expected = -torch.nn.functional.logsigmoid(torch.tensor(margins) / 1.7).mean()
    assert log_loss(margins, 1.7) == pytest.approx(float(expected), rel=1e-12)


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    # Said 0.8 and right in 8 of 10; said 0.6 and right in 3 of 5.
    margins = np.array([logit(0.8)] * 8 + [-logit(0.8)] * 2 + [logit(0.6)] * 3 + [-logit(0.6)] * 2)
    assert calibration(margins)["ece"] == pytest.approx(0.0, abs=1e-12)


def test_overconfidence_is_the_gap_weighted_by_pairs() -> None:
    # Four pairs said 0.93 and right in two, one pair said 0.57 and right: (4 * 0.43 + 1 * 0.43) / 5.
    margins = np.array([logit(0.93)] * 2 + [-logit(0.93)] * 2 + [logit(0.57)])
    found = calibration(margins)
    assert found["ece"] == pytest.approx(0.43)
    assert len(found["bins"]) == 10
    filled = {row["low"]: row for row in found["bins"] if row["pairs"]}
    assert sorted(filled) == pytest.approx([0.55, 0.9])
    assert filled[max(filled)] == {
        "low": pytest.approx(0.9),
        "high": pytest.approx(0.95),
        "pairs": 4,
        "confidence": pytest.approx(0.93),
        "accuracy": 0.5,
    }
    assert found["bins"][0] == {"low": 0.5, "high": 0.55, "pairs": 0, "confidence": None, "accuracy": None}


def test_equal_scores_are_sure_of_nothing_and_half_right() -> None:
    found = calibration(np.zeros(3))
    assert found["ece"] == 0.0
    assert found["bins"][0]["pairs"] == 3


def test_a_margin_without_bounds_falls_into_the_last_bin() -> None:
    assert calibration(np.array([1e4, -1e4]))["bins"][-1]["pairs"] == 2


def test_the_temperature_of_one_margin_is_known_in_closed_form() -> None:
    # A share p right by the margin a: sigmoid(a / T) = p.
    margins = np.array([2.0] * 7 + [-2.0] * 3)
    assert fit_temperature(margins) == pytest.approx(2.0 / logit(0.7), rel=1e-9)


def test_the_temperature_is_where_a_general_minimiser_ends() -> None:
    margins = np.random.default_rng(0).normal(0.7, 1.5, 300)
    expected = optimize.minimize_scalar(
        lambda t: float(np.log1p(np.exp(-margins / t)).mean()), bounds=(0.05, 50), method="bounded"
    )
    assert fit_temperature(margins) == pytest.approx(expected.x, rel=1e-3)


@pytest.mark.parametrize("margins", [[1.0, 0.5], [0.0, 2.0], [-1.0, 0.5], [1.0, -1.0], []])
def test_no_temperature_where_none_is_best(margins: list[float]) -> None:
    assert fit_temperature(np.array(margins)) is None


def test_the_temperature_is_fitted_on_other_prompts_than_it_is_tried_on() -> None:
    generator = np.random.default_rng(3)
    judged = [
        Judged([4 * float(generator.normal(0.5)), 0.0, 0.0], [1, 1, 1], [(0, 1), (0, 2)]) for _ in range(40)
    ]  # margins four times too wide
    found = temperature(PairTable.of(judged))
    assert (found["fitted_pairs"], found["other_pairs"]) == (40, 40)
    assert found["value"] > 1.5
    assert found["scaled_log_loss"] < found["log_loss"]


def test_one_prompt_cannot_be_halved() -> None:
    found = temperature(PairTable.of([Judged([1.0, 0.0], [1, 1], [(0, 1)])]))
    assert found["value"] is None
    assert found["scaled_log_loss"] is None
    assert found["log_loss"] == pytest.approx(math.log1p(math.exp(-1)))
