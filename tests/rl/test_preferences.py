from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ftcli.rl.preferences import Comparison, comparison_loss, flatten_pairs, wilson_interval, wins
from ftcli.rl.sequences import Exchange


def comparison(answers: int, pairs: list[tuple[int, int]]) -> Comparison:
    return Comparison([Exchange([5], [6 + index]) for index in range(answers)], pairs)


def test_a_ranking_weighs_as_one_prompt_and_matches_the_reference(vectors: Any) -> None:
    case = vectors["kwise"]
    pairs = [(int(winner), int(loser)) for winner, loser in case["pairs"].tolist()]
    found = comparison_loss(case["rewards"], flatten_pairs([comparison(4, pairs)]))
    assert float(found) == pytest.approx(case["loss"], abs=1e-7)  # weights are float32


def test_pairs_of_several_prompts_are_numbered_through() -> None:
    found = flatten_pairs([comparison(3, [(0, 1), (0, 2)]), comparison(2, [(1, 0)])])
    assert found.winners.tolist() == [0, 0, 4]
    assert found.losers.tolist() == [1, 2, 3]
    assert found.weights.tolist() == [0.5, 0.5, 1.0]


def test_centering_adds_the_square_of_the_sum(vectors: Any) -> None:
    case = vectors["bt"]
    scores = torch.stack([case["chosen"], case["rejected"]], dim=1).flatten()
    found = comparison_loss(scores, flatten_pairs([comparison(2, [(0, 1)])] * 3), centering=0.01)
    assert float(found) / 3 == pytest.approx(case["loss_center_001"], abs=1e-9)


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
