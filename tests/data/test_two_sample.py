"""The classifier and divergence tests, against scipy and hand arithmetic."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, sparse, stats
from scipy.spatial import distance

from ftcli.data.features import Words, ngram_counts, unit_rows
from ftcli.data.two_sample import (
    auc,
    chance_error,
    classifier_test,
    divergence_test,
    fit_logistic,
    fold_groups,
    jensen_shannon,
    judged,
)

SCORES = st.lists(st.integers(0, 9), min_size=1, max_size=20)


def texts(count: int, seed: int, vocabulary: int = 300, prefix: str = "w") -> list[str]:
    """Texts of ten words, the lower numbers the more frequent."""
    draw = random.Random(seed)
    return [" ".join(f"{prefix}{int(vocabulary * draw.random() ** 2)}" for _ in range(10)) for _ in range(count)]


def classify(left: Sequence[str], right: Sequence[str], groups: Sequence[str] | None = None) -> dict[str, Any]:
    table = Words.of([*left, *right])
    own = groups or [str(index) for index in range(len(left) + len(right))]
    return classifier_test(unit_rows(ngram_counts(table)), own, table, seed=1)


def diverge(left: Sequence[str], right: Sequence[str]) -> dict[str, Any]:
    return divergence_test(ngram_counts(Words.of([*left, *right])), seed=1)


@given(SCORES, SCORES)
def test_auc_is_the_mann_whitney_statistic(positive: list[int], negative: list[int]) -> None:
    u = stats.mannwhitneyu(positive, negative).statistic
    assert auc(positive, negative) == pytest.approx(u / (len(positive) * len(negative)))


def test_auc_by_hand() -> None:
    assert auc([1, 2], [1]) == 0.75  # a tie and a win
    assert auc([5, 6], [1, 2]) == 1
    assert auc([3, 3], [3]) == 0.5


COUNTS = st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any)


@given(COUNTS, COUNTS)
def test_divergence_is_that_of_scipy(left: list[int], right: list[int]) -> None:
    expected = distance.jensenshannon(left, right, base=2) ** 2
    assert float(jensen_shannon(np.array(left, float), np.array(right, float))) == pytest.approx(expected, abs=1e-9)


def test_a_logistic_fit_by_one_equation() -> None:
    """Five rows at +1 and five at -1: by symmetry no intercept, and w = 10 sigmoid(-w) at the minimum."""
    features = sparse.csr_array(np.repeat([[1.0], [-1.0]], 5, axis=0))
    weights, intercept = fit_logistic(features, np.arange(10) < 5)
    assert weights[0] == pytest.approx(optimize.brentq(lambda w: w - 10 / (1 + math.exp(w)), 0, 10), abs=1e-6)
    assert intercept == pytest.approx(0, abs=1e-6)


def test_the_intercept_is_free_of_penalty() -> None:
    _, intercept = fit_logistic(sparse.csr_array(np.zeros((4, 1))), np.array([True, True, True, False]))
    assert intercept == pytest.approx(math.log(3), abs=1e-5)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(0, 5))
def test_folds_hold_whole_groups_wherever_these_stand(groups: list[str], seed: int) -> None:
    folds = fold_groups(groups, seed).tolist()
    fold_of = dict(zip(groups, folds, strict=True))
    assert folds == [fold_of[group] for group in groups]
    backwards = fold_groups(groups[::-1], seed).tolist()
    assert backwards[::-1] == folds


@given(st.integers(3, 200))
def test_single_rows_fill_the_folds_evenly(count: int) -> None:
    sizes = np.bincount(fold_groups([str(index) for index in range(count)], 1), minlength=3)
    assert sizes.max() - sizes.min() <= 1


def test_one_distribution_cannot_be_told_apart() -> None:
    found = classify(texts(400, 1), texts(400, 2))
    assert abs(found["auc"] - 0.5) < 3 * found["chance_se"]
    assert found["light"] == "green"


def test_other_words_are_told_apart_and_named() -> None:
    shared = texts(400, 1)
    found = classify([f"please {text}" for text in shared[:300]], [f"kindly {text}" for text in texts(300, 2)])
    assert found["auc"] > 0.99
    assert found["light"] == "red"
    over, missing = found["over_represented"][0], found["missing"][0]
    assert (over["ngram"], over["train_share"], over["reference_share"]) == ("please", 1, 0)
    assert (missing["ngram"], missing["train_share"], missing["reference_share"]) == ("kindly", 0, 1)
    assert over["weight"] > 0 > missing["weight"]


def test_copies_in_two_folds_would_be_learnt_by_heart() -> None:
    left, right = texts(60, 1) * 6, texts(60, 2) * 6
    assert classify(left, right)["auc"] > 0.95
    assert classify(left, right, groups=[*left, *right])["auc"] < 0.7


def test_the_spread_of_chance_is_wider_than_one_test_would_have() -> None:
    found = [classify(texts(60, 2 * seed), texts(60, 2 * seed + 1))["auc"] for seed in range(60)]
    once = np.std([auc(part[:60], part[60:]) for part in np.random.default_rng(0).random((60, 120))])
    assert once * 1.05 < np.std(found) < chance_error(60) * 1.25
    assert abs(np.mean(found) - 0.5) < 0.02


def test_texts_without_a_common_ngram_teach_nothing() -> None:
    found = classify([f"l{index}" for index in range(40)], [f"r{index}" for index in range(40)])
    assert found["auc"] == 0.5
    assert found["over_represented"] == found["missing"] == []


def test_one_text_a_side_makes_no_folds() -> None:
    left, right = ["one text"] * 40, ["another"] * 40
    found = classify(left, right, groups=[*left, *right])
    assert found["auc"] is None
    assert found["reason"] == "too few different prompts for three folds"


@pytest.mark.parametrize("rows", [0, 1, 29])
def test_few_rows_are_refused_with_the_reason(rows: int) -> None:
    left, right = texts(rows, 1), texts(rows, 2)
    reason = f"{rows} rows on the smaller side, at least 30 needed"
    assert classify(left, right) == {"auc": None, "light": None, "reason": reason}
    assert diverge(left, right) == {"jsd": None, "light": None, "reason": reason}


def test_one_distribution_diverges_by_chance_only() -> None:
    found = diverge(texts(400, 1), texts(400, 2))
    assert found["jsd"] > 0.05
    assert abs(found["excess"]) < 3 * found["chance_sd"]
    assert found["p"] > 0.01
    assert found["light"] == "green"


def test_the_divergence_of_one_distribution_falls_with_the_rows_and_the_excess_does_not() -> None:
    few, many = diverge(texts(100, 1), texts(100, 2)), diverge(texts(1000, 1), texts(1000, 2))
    assert few["jsd"] > 1.5 * many["jsd"]
    assert abs(few["excess"]) < 0.01
    assert abs(many["excess"]) < 0.01


def test_disjoint_words_diverge_by_one_bit() -> None:
    found = diverge(texts(300, 1, 4, "l"), texts(300, 2, 4, "r"))  # few words, so that no two share a bucket
    assert found["jsd"] == 1
    assert found["p"] == round(1 / 201, 6)  # the least that 200 permutations can give
    assert found["light"] == "red"


def test_what_every_shuffle_equals_is_chance() -> None:
    assert diverge(["one text"] * 40, ["one text"] * 40)["p"] == 1


def test_the_divergence_of_the_counts_is_that_of_scipy() -> None:
    counts = ngram_counts(Words.of([*texts(40, 1), *texts(40, 2)])).toarray()
    expected = distance.jensenshannon(counts[:40].sum(axis=0), counts[40:].sum(axis=0), base=2) ** 2
    assert diverge(texts(40, 1), texts(40, 2))["jsd"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "rows", "light"),
    [(0.55, 300, "green"), (0.56, 300, "amber"), (0.65, 300, "amber"), (0.66, 300, "red"), (0.9, 299, None)],
)
def test_lights(value: float, rows: int, light: str | None) -> None:
    assert judged(value, (0.55, 0.65), rows) == light
