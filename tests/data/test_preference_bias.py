"""Length as the only reason to prefer an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftcli.data.preference_bias import length_pairs, measure

LENGTHS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=30)


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def ranking(*candidates: tuple[str, int]) -> dict[str, Any]:
    return {"prompt": [], "candidates": [{"content": text, "rank": rank} for text, rank in candidates]}


def test_a_preference_by_hand() -> None:
    row = {"prompt": [], "chosen": message("long answer"), "rejected": message("no")}
    assert list(length_pairs(row)) == [(11, 2)]
    assert list(length_pairs(row, length=lambda text: len(text.split()))) == [(2, 1)]


def test_a_ranking_counts_as_its_pairs_without_ties() -> None:
    row = ranking(("ccc", 2), ("a", 1), ("bb", 2), ("dddd", 3))
    assert sorted(length_pairs(row)) == [(1, 2), (1, 3), (1, 4), (2, 4), (3, 4)]


def test_the_measures_by_hand() -> None:
    found = measure([(10, 4), (6, 6), (3, 7), (9, 5)], unit="tokens")
    assert found == {
        "pairs": 4,
        "unit": "tokens",
        "mean_better": 7,
        "mean_worse": 5.5,
        "mean_difference": 1.5,
        "share_longer": 0.5,
        "share_equal": 0.25,
        "pair_accuracy": 0.625,
        "auc": 0.65625,  # of the 16 pairs of better and worse: 4 + 2.5 + 0 + 4 wins
        "light": None,
    }


@given(LENGTHS)
def test_the_auc_is_the_mann_whitney_statistic(pairs: list[tuple[int, int]]) -> None:
    better, worse = zip(*pairs, strict=True)
    u = stats.mannwhitneyu(better, worse).statistic
    assert measure(pairs, unit="characters")["auc"] == pytest.approx(u / len(pairs) ** 2, abs=1e-6)


def test_no_pairs_are_no_measure() -> None:
    assert measure([], unit="tokens")["reason"] == "no pairs"


@pytest.mark.parametrize(
    ("pairs", "light"),
    [
        ([(5, 4)] * 65 + [(4, 5)] * 35, "green"),
        ([(5, 4)] * 66 + [(4, 5)] * 34, "amber"),
        ([(4, 5)] * 66 + [(5, 4)] * 34, "amber"),
        ([(5, 4)] * 66 + [(4, 5)] * 33, None),
    ],
)
def test_lights(pairs: list[tuple[int, int]], light: str | None) -> None:
    assert measure(pairs, unit="tokens")["light"] == light


def test_a_word_more_among_prompts_of_all_lengths_is_seen_within_the_pairs_only() -> None:
    found = measure([(length + 1, length) for length in range(10, 1010)], unit="tokens")
    assert found["auc"] < 0.51
    assert found["pair_accuracy"] == 1
    assert found["light"] == "amber"
