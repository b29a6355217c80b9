from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ftcli.rl.judged import Judged, PairTable, accuracy_interval, agreement, right


def test_a_draw_is_half_right() -> None:
    assert right(np.array([2.0, 0.0, -0.1])).tolist() == [1.0, 0.5, 0.0]


def test_the_table_has_a_line_for_each_pair_and_none_for_a_tie() -> None:
    table = PairTable.of(
        [
            Judged([1.0, 3.0], [5, 7], [(1, 0)]),
            Judged([0.0, -1.0, 4.0], [2, 3, 9], [(0, 1), (2, 1)], [(0, 2)]),
        ]
    )
    assert table.prompt.tolist() == [0, 1, 1]
    assert table.margin.tolist() == [2.0, 1.0, 5.0]
    assert table.longer.tolist() == [2, -1, 6]


def test_without_a_winner_there_is_no_table() -> None:
    with pytest.raises(ValueError, match="no pair has a winner"):
        PairTable.of([Judged([1.0, 2.0], [1, 1], [], [(0, 1)])])


@pytest.mark.parametrize(("rights", "pairs"), [(8, 8), (12, 16), (0, 5)])
def test_one_pair_a_prompt_has_wilsons_interval(rights: int, pairs: int) -> None:
    correct = np.array([1.0] * rights + [0.0] * (pairs - rights))
    low, high, method = accuracy_interval(correct, np.arange(pairs))
    expected = stats.binomtest(rights, pairs).proportion_ci(0.95, method="wilson")
    assert (low, high, method) == (pytest.approx(expected.low), pytest.approx(expected.high), "wilson")


def test_pairs_that_are_all_right_count_as_one_trial_a_prompt() -> None:
    low, high, method = accuracy_interval(np.ones(60), np.repeat(np.arange(10), 6))
    assert (low, high, method) == (
        pytest.approx(0.7225, abs=1e-4),
        pytest.approx(1.0),
        "wilson",
    )  # 10 of 10; 60 of 60 has 0.94


def test_the_bootstrap_resamples_prompts_and_is_seeded() -> None:
    # Two prompts of two pairs, one all right and one all wrong: a resample has 0, 1/2 or 1 with odds 1 : 2 : 1.
    correct, prompt = np.array([1.0, 1.0, 0.0, 0.0]), np.array([7, 7, 9, 9])
    assert accuracy_interval(correct, prompt) == (0.0, 1.0, "cluster bootstrap")
    many, where = np.tile([1.0, 0.0, 1.0, 1.0, 0.0], 40), np.repeat(np.arange(50), 4)
    assert accuracy_interval(many, where, seed=1) == accuracy_interval(many, where, seed=1)
    assert accuracy_interval(many, where, seed=1) != accuracy_interval(many, where, seed=2)


def test_the_cluster_bootstrap_covers_where_wilson_does_not() -> None:
    """Six pairs of each of 60 prompts that are mostly right or wrong together, as the pairs of one ranking are."""
    generator = np.random.default_rng(11)
    truth, prompts, pairs, runs = 0.6, 60, 6, 200
    prompt = np.repeat(np.arange(prompts), pairs)
    covered: dict[str, int] = {"cluster": 0, "wilson": 0}
    for run in range(runs):
        easy = generator.random(prompts) < 0.5  # each pair right with 0.95 there, with 0.25 elsewhere
        chance = np.where(easy, 0.95, 0.25)[prompt]
        correct = (generator.random(len(prompt)) < chance).astype(float)
        low, high, _ = accuracy_interval(correct, prompt, resamples=400, seed=run)
        covered["cluster"] += low <= truth <= high
        naive = stats.binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
        covered["wilson"] += naive.low <= truth <= naive.high
    assert covered["cluster"] >= 0.91 * runs
    assert covered["wilson"] <= 0.80 * runs


def test_agreement_counts_orders_that_change_and_ties_that_break() -> None:
    found: dict[str, Any] = agreement([1.0, 2.0, 5.0, 5.0], [1.5, 1.0, 5.0, 5.25], [(0, 1), (2, 0), (2, 3)])
    assert found == {
        "answers": 4,
        "pairs": 3,
        "max_difference": 1.0,
        "mean_difference": pytest.approx(1.75 / 4),
        "order_flips": pytest.approx(2 / 3),
    }
