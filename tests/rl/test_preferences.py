from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftcli.rl.preferences import (
    Comparison,
    comparison_loss,
    davidson_loss,
    flatten_pairs,
    starting_log_nu,
    weight_of,
    wilson_interval,
    wins,
)
from ftcli.rl.sequences import Exchange


def comparison(answers: int, pairs: list[tuple[int, int]], **more: Any) -> Comparison:
    return Comparison([Exchange([5], [6 + index]) for index in range(answers)], pairs, **more)


def alternating(case: dict[str, Any]) -> Tensor:
    """Scores of the vectors' pairs, the chosen answer of each before the rejected one."""
    return torch.stack([case["chosen"], case["rejected"]], dim=1).flatten()


def test_a_ranking_weighs_as_one_prompt_and_matches_the_reference(vectors: Any) -> None:
    case = vectors["kwise"]
    pairs = [(int(winner), int(loser)) for winner, loser in case["pairs"].tolist()]
    found = comparison_loss(case["rewards"], flatten_pairs([comparison(4, pairs)]))
    assert float(found) == pytest.approx(case["loss"], abs=1e-9)


def test_weighted_by_pair_a_ranking_counts_as_the_sum_of_its_pairs(vectors: Any) -> None:
    case = vectors["kwise"]
    pairs = [(int(winner), int(loser)) for winner, loser in case["pairs"].tolist()]
    found = comparison_loss(case["rewards"], flatten_pairs([comparison(4, pairs)], weighting="pair"))
    assert float(found) == pytest.approx(case["loss_sum"], abs=1e-9)


def test_pairs_of_several_prompts_are_numbered_through_with_ties_last() -> None:
    many = [
        comparison(3, [(0, 1), (0, 2)], ties=[(1, 2)], margins=[0.5, 1.5]),
        comparison(2, [(1, 0)]),
    ]
    found = flatten_pairs(many)
    assert found.winners.tolist() == [0, 0, 1, 4]
    assert found.losers.tolist() == [1, 2, 2, 3]
    assert found.weights.tolist() == [1 / 3, 1 / 3, 1 / 3, 1.0]
    assert found.margins.tolist() == [0.5, 1.5, 0.0, 0.0]
    assert found.is_tie.tolist() == [False, False, True, False]
    assert flatten_pairs(many, weighting="pair").weights.tolist() == [1.0] * 4
    assert (weight_of(many, "prompt"), weight_of(many, "pair")) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("settings", "margins", "expected"),
    [
        ({}, [], "loss"),
        ({}, [0.5, 0.0, 1.0], "loss_margin"),
        ({"centering": 0.01}, [], "loss_center_001"),
        ({"label_smoothing": 0.1}, [], "loss_label_smooth_01"),
    ],
)
def test_pairs_match_the_reference(vectors: Any, settings: Any, margins: list[float], expected: str) -> None:
    case = vectors["bt"]
    many = [comparison(2, [(0, 1)], margins=margins[index : index + 1]) for index in range(3)]
    found = comparison_loss(alternating(case), flatten_pairs(many), **settings)
    assert float(found) / 3 == pytest.approx(case[expected], abs=1e-9)


def test_margin_and_centering_together_match_the_reference(vectors: Any) -> None:
    many = [comparison(2, [(0, 1)], margins=[margin]) for margin in (0.5, 0.0, 1.0)]
    found = comparison_loss(alternating(vectors["bt"]), flatten_pairs(many), centering=0.01)
    assert float(found) / 3 == pytest.approx(vectors["bt"]["loss_margin_center_001"], abs=1e-9)


def test_a_soft_tie_matches_the_reference(vectors: Any) -> None:
    case = vectors["ties"]
    scores = torch.tensor([case["d"], 0.0], dtype=torch.float64)
    tie = flatten_pairs([comparison(2, [], ties=[(0, 1)])])
    assert float(comparison_loss(scores, tie)) == pytest.approx(case["soft_bce_tie"], abs=1e-9)
    assert float(comparison_loss(scores.flip(0), tie)) == pytest.approx(case["soft_bce_tie"], abs=1e-9)


def test_davidson_matches_the_reference(vectors: Any) -> None:
    case = vectors["ties"]
    win, loss, tie = (case[name] for name in ("p_win", "p_loss", "p_tie"))
    scores = torch.tensor([case["d"], 0.0], dtype=torch.float64)
    nu_is_one = torch.zeros((), dtype=torch.float64)
    for one, probability in (
        (comparison(2, [(0, 1)]), win),
        (comparison(2, [(1, 0)]), loss),
        (comparison(2, [], ties=[(0, 1)]), tie),
    ):
        found = comparison_loss(scores, flatten_pairs([one]), log_nu=nu_is_one)
        assert float(found) == pytest.approx(-math.log(probability), abs=1e-9)


def test_davidson_is_bradley_terry_where_nothing_ties() -> None:
    difference = torch.linspace(-300, 300, 25, dtype=torch.float64)
    never = torch.tensor(-1e4, dtype=torch.float64)
    found = davidson_loss(difference, torch.zeros(25, dtype=torch.bool), never)
    torch.testing.assert_close(found, -logsigmoid(difference))


def test_davidsons_nu_starts_where_equal_answers_tie_as_often_as_told() -> None:
    log_nu = torch.tensor(starting_log_nu(0.3), dtype=torch.float64)
    found = davidson_loss(torch.zeros(1, dtype=torch.float64), torch.tensor([True]), log_nu)
    assert float(found) == pytest.approx(-math.log(0.3), abs=1e-12)


def test_ties_count_half() -> None:
    assert wins([0.4, -0.1, 0.0, 2.0]) == 2.5


def test_wilson_matches_the_reference(vectors: Any) -> None:
    case = vectors["wilson95"]
    for successes, trials, expected in zip(case["k"], case["n"], case["ci"], strict=True):
        assert wilson_interval(float(successes), int(trials)) == pytest.approx(expected.tolist(), abs=1e-9)


@given(st.integers(1, 500), st.data())
def test_wilson_agrees_with_scipy(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)
