from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ftcli.rl.judged import Judged, PairTable
from ftcli.rl.reward_card import baselines, by_margin, histogram, length_bias, reward_card, reward_gate, spearman

GOOD = {
    "pairs": 120,
    "prompts": 120,
    "accuracy": 0.7,
    "accuracy_low": 0.62,
    "accuracy_high": 0.77,
    "longer_wins_accuracy": 0.55,
}
FOUR = [
    Judged([2.0, 0.0], [10, 30], [(0, 1)], source="a"),  # right, the shorter won
    Judged([0.0, 1.0], [30, 10], [(0, 1)], source="a"),  # wrong, the longer won
    Judged([1.0, 1.0], [20, 19], [(0, 1)], source="b"),  # a draw, the longer won by less than a tenth
    Judged([5.0, 1.0, 0.0], [7, 7, 7], [(0, 1), (0, 2)], [(1, 2)], source="b"),  # right twice, all of one length
]


def test_the_card_agrees_with_counting_by_hand() -> None:
    card = reward_card(FOUR)
    assert (card["pairs"], card["prompts"], card["ties_by_people"]) == (5, 4, 1)
    assert card["accuracy"] == pytest.approx(3.5 / 5)
    assert card["longer_wins_accuracy"] == pytest.approx((0 + 1 + 1 + 0.5 + 0.5) / 5)
    assert card["shorter_wins_accuracy"] == pytest.approx(1 - 3 / 5)
    assert card["tie_rate"] == pytest.approx(1 / 5)
    expected = [math.log1p(math.exp(-margin)) for margin in (2, -1, 0, 4, 5)]
    assert card["log_loss"] == pytest.approx(sum(expected) / 5)
    assert card["accuracy_low"] <= card["accuracy"] <= card["accuracy_high"]
    assert card["interval"] == "cluster bootstrap"
    assert card["tie_margins"] == {"pairs": 1, "mean": 1.0, "decided_mean": pytest.approx(12 / 5)}
    assert [(row["source"], row["pairs"], row["accuracy"]) for row in card["by_source"]] == [
        ("b", 3, pytest.approx(2.5 / 3)),
        ("a", 2, 0.5),
    ]


def test_an_answer_in_many_pairs_counts_once_in_the_statistics() -> None:
    card = reward_card([Judged([3.0, 1.0, 0.0], [4, 5, 6], [(0, 1), (0, 2), (1, 2)])])
    assert card["chosen"]["mean"] == pytest.approx(2.0)  # 3 and 1
    assert card["rejected"]["mean"] == pytest.approx(0.5)  # 1 and 0
    assert sum(card["scores"]["chosen"]) == sum(card["scores"]["rejected"]) == 2


def test_the_card_is_json_and_the_same_twice() -> None:
    generator = np.random.default_rng(5)
    judged = [
        Judged(generator.normal(size=4).tolist(), generator.integers(1, 50, 4).tolist(), [(0, 1), (2, 3), (0, 3)])
        for _ in range(30)
    ]
    card = reward_card(judged)
    assert json.loads(json.dumps(card, allow_nan=False)) == card == reward_card(judged)


def test_scores_that_are_not_finite_have_no_card() -> None:
    with pytest.raises(ValueError, match="not finite"):
        reward_card([Judged([math.nan, 1.0], [1, 2], [(0, 1)])])


def test_spearman_is_that_of_scipy_with_ties() -> None:
    generator = np.random.default_rng(2)
    for _ in range(20):
        one, two = generator.integers(0, 5, 9).tolist(), generator.normal(size=9).round(1).tolist()
        assert spearman(one, two) == pytest.approx(float(stats.spearmanr(one, two).statistic))
    assert spearman([1.0, 1.0], [3, 4]) is None
    assert spearman([1.0, 2.0], [3, 3]) is None


def test_length_bias_by_hand() -> None:
    found = length_bias(FOUR, PairTable.of(FOUR))
    assert found["spearman"] == pytest.approx(-1.0)  # of the first two; the others say nothing
    assert found["spearman_prompts"] == 2
    assert found["prefers_longer"] == pytest.approx((0 + 0 + 0.5) / 3)
    assert found["people_prefer_longer"] == pytest.approx(2 / 3)
    assert found["shorter_won"] == {"pairs": 1, "accuracy": 1.0}
    assert found["longer_won"] == {"pairs": 2, "accuracy": 0.25}
    assert found["alike"] == {"pairs": 3, "accuracy": pytest.approx(2.5 / 3)}


def test_a_scorer_that_counts_tokens_is_found_out() -> None:
    generator = np.random.default_rng(9)
    judged = []
    for _ in range(200):
        lengths = generator.integers(10, 100, 2).tolist()
        winner = int(lengths[1] > lengths[0]) if generator.random() < 0.6 else int(generator.random() < 0.5)
        judged.append(Judged([float(length) for length in lengths], lengths, [(winner, 1 - winner)]))
    card = reward_card(judged)
    assert card["accuracy"] == card["longer_wins_accuracy"] > 0.6
    assert card["length_bias"]["spearman"] == pytest.approx(1.0)
    assert card["length_bias"]["shorter_won"]["accuracy"] == 0.0
    assert "is not clearly above" in str(reward_gate(card))
    assert "preferring the longer answer gives" in str(reward_gate(card))


def test_what_no_pair_can_tell_is_none() -> None:
    card = reward_card([Judged([1.0, 0.0], [4, 4], [(0, 1)])])
    bias = card["length_bias"]
    assert bias["spearman"] is bias["prefers_longer"] is None
    assert bias["shorter_won"] == {"pairs": 0, "accuracy": None}
    assert card["tie_margins"] is None
    assert card["by_margin"] == card["by_source"] == []


def test_a_random_judge_falls_where_the_binomial_says() -> None:
    judged = [Judged([1.0, 0.0], [4, 4], [(0, 1)])] * 100
    found = baselines(judged, PairTable.of(judged))["random"]
    low, high = stats.binom(100, 0.5).ppf([0.025, 0.975]) / 100
    assert found["accuracy"] == 0.5
    assert found["low"] == pytest.approx(low, abs=0.011)
    assert found["high"] == pytest.approx(high, abs=0.011)


def test_accuracy_rises_with_the_margin_where_margins_mean_something() -> None:
    margins = np.array([0.1, -0.2, 0.3, -0.1, 0.2, 1.0, 1.1, -1.2, 1.3, 1.4])
    assert by_margin(margins) == [
        {"low": 0.1, "high": 0.3, "pairs": 5, "accuracy": pytest.approx(0.6)},
        {"low": 1.0, "high": 1.4, "pairs": 5, "accuracy": pytest.approx(0.8)},
    ]
    assert len(by_margin(np.arange(1.0, 41.0))) == 4
    assert by_margin(margins[:9]) == []


def test_a_histogram_counts_everything_and_separates_below_zero_from_above() -> None:
    values = [-1.0, -0.01, 0.0, 0.01, 2.0]
    found = histogram(pairs=values, other=[-1.0, 2.0])
    edges, counts = found["edges"], found["pairs"]
    assert 0.0 in edges
    assert len(counts) == len(edges) - 1
    assert (sum(counts), sum(found["other"])) == (5, 2)
    zero = edges.index(0.0)
    assert sum(counts[:zero]) == 2
    same = histogram(pairs=[3.0, 3.0])
    assert sum(same["pairs"]) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"accuracy_low": 0.55}, "not clearly above the 0.550 that preferring the longer answer gives"),
        ({"longer_wins_accuracy": 0.3}, "not clearly above the 0.700 that preferring the shorter answer gives"),
        ({"accuracy_low": 0.49, "longer_wins_accuracy": 0.5}, "not clearly above the 0.500 that a coin gives"),
        ({"prompts": 19}, "measured on the pairs of 19 prompts only, 20 are needed"),
    ],
)
def test_the_gate_says_why(changes: dict[str, Any], reason: str | None) -> None:
    found = reward_gate({**GOOD, **changes})
    assert (found is None) if reason is None else (reason in str(found))


def test_the_gate_names_what_is_missing() -> None:
    stats_of_others = {name: value for name, value in GOOD.items() if name != "accuracy_low"}
    assert reward_gate(stats_of_others) == "its reward_stats.json has no accuracy_low"
