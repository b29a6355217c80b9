from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest
from scipy import stats

from ftcli.metrics.corpus import corpus_of
from ftcli.metrics.statistics import (
    EXACT_ROWS,
    Array,
    Examples,
    detectable,
    difference,
    disagreements,
    fewest_rows,
    holm,
    interval,
    mcnemar,
    mean_of,
    paired_error,
    paired_interval,
    permutation_p,
    quotient,
    share_change,
    standard_error,
    wilson,
    yeses,
)
from ftcli.metrics.text import TextScore, bleu, chrf

BASE = [0.31, 0.42, 0.55, 0.10, 0.77, 0.63, 0.28, 0.91, 0.44, 0.36, 0.52, 0.49, 0.70, 0.15, 0.83, 0.60, 0.33, 0.47]
BASE += [0.58, 0.66]
TUNED = [0.38, 0.40, 0.61, 0.22, 0.75, 0.70, 0.35, 0.90, 0.50, 0.41, 0.50, 0.58, 0.74, 0.30, 0.85, 0.59, 0.45, 0.49]
TUNED += [0.66, 0.71]


def test_paired_difference_of_twenty_scores():
    found = difference(mean_of(BASE), mean_of(TUNED))
    assert found.delta == pytest.approx(0.0495)
    assert found.se == pytest.approx(0.011180, abs=1e-6)  # s / sqrt(n)
    assert (found.low, found.high) == pytest.approx((0.028, 0.0715), abs=0.002)
    assert found.p == pytest.approx(0.00039864, abs=3e-4)  # all 2^20 sign flips; here 10,000 of them
    assert found.n == 20


def test_sign_flips_of_twelve_differences_are_exact():
    assert difference(mean_of(BASE[:12]), mean_of(TUNED[:12])).p == pytest.approx(0.01367188, abs=1e-8)


def test_permutation_of_a_ratio_exchanges_whole_documents():
    first = Examples(np.array([[10.0, 5.0], [3.0, 2.0], [8.0, 9.0]]))
    second = Examples(np.array([[9.0, 5.0], [2.5, 2.0], [6.0, 9.0]]))

    def ratio(rows: list[tuple[float, float]]) -> float:
        return sum(nll for nll, _ in rows) / sum(tokens for _, tokens in rows)

    pairs = list(zip(first.statistics.tolist(), second.statistics.tolist(), strict=True))
    deltas = [
        ratio([b if keep else a for (a, b), keep in zip(pairs, signs, strict=True)])
        - ratio([a if keep else b for (a, b), keep in zip(pairs, signs, strict=True)])
        for signs in product([True, False], repeat=3)
    ]
    found = difference(first, second)
    assert found.delta == pytest.approx(deltas[0])
    assert found.p == pytest.approx(sum(abs(one) >= abs(deltas[0]) - 1e-12 for one in deltas) / 8)


def test_a_mean_has_the_classical_standard_error():
    assert standard_error(mean_of(BASE)) == pytest.approx(stats.sem(BASE))


def test_intervals_cover_the_truth_as_often_as_they_say():
    draws = np.random.default_rng(3).exponential(size=(120, 60))
    covered = 0
    for number, values in enumerate(draws):
        low, high = interval(mean_of(values.tolist()), confidence=0.9, resamples=400, seed=number)
        covered += low <= 1.0 <= high
    assert 0.8 <= covered / 120 <= 0.97  # 0.9, less what the percentile method loses on skewed data


def test_equal_models_give_false_alarms_at_the_stated_rate():
    rng = np.random.default_rng(5)
    alarms = sum(
        difference(mean_of(rng.normal(size=25).tolist()), mean_of(rng.normal(size=25).tolist()), resamples=300).p < 0.05
        for _ in range(200)
    )
    assert alarms / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_a_model_against_itself_differs_by_exactly_nothing():
    found = difference(mean_of(BASE), mean_of(BASE), resamples=200)
    assert (found.delta, found.se, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 0.0, 1.0)


SCORES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8)


@settings(max_examples=25, deadline=None)
@given(SCORES)
def test_swapping_the_models_flips_the_sign_and_keeps_p(scores: list[tuple[float, float]]):
    first, second = mean_of([a for a, _ in scores]), mean_of([b for _, b in scores])
    there, back = difference(first, second, resamples=200), difference(second, first, resamples=200)
    assert there.delta == pytest.approx(-back.delta)
    assert there.p == pytest.approx(back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_one_example_tells_nothing_about_spread():
    found = difference(mean_of([0.2]), mean_of([0.9]))
    assert found.delta == pytest.approx(0.7)
    assert all(math.isnan(value) for value in (found.se, found.low, found.high, found.p))
    assert all(math.isnan(value) for value in (*interval(mean_of([0.2])), standard_error(mean_of([0.2]))))
    assert math.isnan(standard_error(mean_of([])))


def test_different_numbers_of_examples_cannot_be_paired():
    with pytest.raises(ValueError, match="2 examples against 1"):
        difference(mean_of([1.0, 2.0]), mean_of([1.0]))


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (0, 10, (0.0, 0.277533)),
        (7, 10, (0.396778, 0.892209)),
        (60, 100, (0.502003, 0.690599)),
        (115, 200, (0.505709, 0.641464)),
    ],
)
def test_wilson_intervals(successes: int, n: int, expected: tuple[float, float]):
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-6)


def log_perplexity(rng: np.random.Generator, n: int) -> tuple[Examples, Examples]:
    """Two models' (nll, tokens) of the same documents, which are of different lengths and difficulty."""
    tokens = rng.integers(3, 60, size=n).astype(float)
    hardness = rng.normal(3, 0.5, size=n)
    one, two = (tokens * (hardness + rng.normal(shift, 0.1, size=n)) for shift in (0.0, 0.02))
    return Examples(np.stack([one, tokens], axis=1)), Examples(np.stack([two, tokens], axis=1))


def scipy_interval(first: Examples, second: Examples, resamples: int) -> tuple[float, float]:
    def change(index: np.ndarray, axis: int = -1) -> Array:
        sums = [side.corpus(side.statistics[index].sum(axis=-2)) for side in (first, second)]
        return sums[1] - sums[0]

    rows = (np.arange(len(first)),)
    found = stats.bootstrap(
        rows,
        change,
        n_resamples=resamples,
        batch=200,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    return found.low, found.high


def scipy_p(first: Examples, second: Examples, resamples: float) -> float:
    both = np.concatenate([first.statistics, second.statistics])

    def change(one: np.ndarray, two: np.ndarray, axis: int = -1) -> Array:
        return second.corpus(both[two].sum(axis=-2)) - first.corpus(both[one].sum(axis=-2))

    rows = np.arange(len(first))
    found = stats.permutation_test(
        (rows, rows + len(first)),
        change,
        permutation_type="samples",
        vectorized=True,
        batch=500,
        n_resamples=resamples,
        rng=np.random.default_rng(7),
    )
    return float(found.pvalue)


def test_intervals_are_those_of_scipys_bootstrap():
    first, second = log_perplexity(np.random.default_rng(1), 80)
    ours, theirs = paired_interval(first, second, resamples=20_000), scipy_interval(first, second, 20_000)
    width = theirs[1] - theirs[0]
    assert ours == pytest.approx(
        theirs, abs=0.05 * width
    )  # a percentile of 20,000 draws is known to about 0.01 of the width
    alone = interval(second, resamples=20_000)
    nothing = Examples(np.stack([np.zeros(80), second.statistics[:, 1]], axis=1))
    assert alone == pytest.approx(scipy_interval(nothing, second, 20_000), abs=0.05 * (alone[1] - alone[0]))


@pytest.mark.parametrize("n", [2, 5, 11])
def test_exact_p_of_a_ratio_is_that_of_scipys_permutation_test(n: int):
    first, second = log_perplexity(np.random.default_rng(n), n)
    assert permutation_p(first, second) == pytest.approx(scipy_p(first, second, np.inf), rel=1e-12)


def test_p_is_exact_up_to_sixteen_rows_and_drawn_beyond():
    first, second = log_perplexity(np.random.default_rng(9), EXACT_ROWS)
    assert permutation_p(first, second, resamples=1) == pytest.approx(scipy_p(first, second, np.inf), rel=1e-12)
    first, second = log_perplexity(np.random.default_rng(9), EXACT_ROWS + 1)
    exact = scipy_p(first, second, np.inf)  # 2^17 exchanges
    drawn = permutation_p(first, second, resamples=20_000)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    assert drawn * 20_001 == pytest.approx(round(drawn * 20_001))  # (k + 1) / (B + 1)


def test_a_drawn_p_is_never_zero():
    assert permutation_p(mean_of([0.0] * 30), mean_of([1.0] * 30), resamples=99) == pytest.approx(1 / 100)


def test_a_corpus_metric_is_recomputed_from_its_counts():
    rng = np.random.default_rng(4)
    matches = rng.integers(0, 4, size=(2, 9, 4))
    words = np.full((2, 9, 2), 8)
    total = np.broadcast_to([8, 7, 6, 5], (2, 9, 4))
    sides = np.concatenate([words, matches, total], axis=2).astype(float)
    first, second = (Examples(side, corpus_of("bleu/13a"), "bleu/13a") for side in sides)
    assert permutation_p(first, second) == pytest.approx(scipy_p(first, second, np.inf), rel=1e-12)
    low, high = paired_interval(first, second)
    assert (low, high) == pytest.approx(scipy_interval(first, second, 10_000), abs=0.08 * (high - low))


@pytest.mark.parametrize(("name", "score", "theirs"), [("bleu", bleu, BLEU()), ("chrf", chrf, CHRF(word_order=2))])
def test_p_of_a_corpus_metric_is_that_of_sacrebleus_paired_test(
    name: str, score: Callable[[list[str], list[str]], TextScore], theirs: Metric
):
    rng = np.random.default_rng(8)
    words = ["the", "a", "cat", "dog", "sat", "on", "mat", "and", "saw", "it", "then", "ran", "away", "from", "here"]
    references = [" ".join(rng.choice(words, size=12)) for _ in range(30)]

    def spoilt(share: float) -> list[str]:
        return [
            " ".join(rng.choice(words) if rng.random() < share else word for word in line.split())
            for line in references
        ]

    first, second = spoilt(0.25), spoilt(0.3)
    _, found = PairedTest(
        [("first", first), ("second", second)], {name: theirs}, [references], test_type="ar", n_samples=5000
    )()
    one, two = score(first, references), score(second, references)
    expected = list(found.values())[1][1]  # after the systems' names the one metric, of which the second system
    assert two.value == pytest.approx(expected.score)
    ours = permutation_p(one.examples, two.examples, resamples=5000)
    assert 0.02 < expected.p_value < 0.98  # a case in which something could go wrong
    assert ours == pytest.approx(expected.p_value, abs=4 * math.sqrt(2 * ours * (1 - ours) / 5000))


def test_paired_errors_are_smaller_than_unpaired_ones():
    first, second = log_perplexity(np.random.default_rng(2), 60)
    gaps = (second.statistics[:, 0] - first.statistics[:, 0]) / first.statistics[:, 1].mean()
    ratio = (gaps - gaps.mean() * first.statistics[:, 1] / first.statistics[:, 1].mean()).std(ddof=1) / math.sqrt(60)
    assert paired_error(first, second) == pytest.approx(ratio, rel=0.05)  # the ratio estimator's linearised variance
    assert paired_error(first, second) < standard_error(first)


def test_a_resample_without_a_value_leaves_no_p_and_no_interval():
    first = Examples(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    second = Examples(np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    assert math.isnan(paired_interval(first, second)[0])
    unequal = Examples(np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
    assert math.isnan(permutation_p(first, unequal))  # an exchange leaves one side without any weight


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    [(10, 3, 0.09228516), (0, 5, 0.0625), (8, 8, 1.0), (25, 9, 0.00904119), (0, 0, 1.0), (40, 60, 0.05688793)],
)
def test_exact_mcnemar(worse: int, better: int, p: float):
    assert mcnemar(worse, better) == pytest.approx(p, abs=1e-8)
    assert mcnemar(better, worse) == mcnemar(worse, better)


def test_a_share_that_never_changed_is_not_sure_to_stay():
    """By hand, with one row more each way: 100 rows that agree are 1 of 102 up and 1 of 102 down."""
    assert share_change(0, 0, 100) == (0.0, pytest.approx(math.sqrt(2 / 102 / 102)))
    assert share_change(3, 9, 60) == (
        pytest.approx(6 / 62),
        pytest.approx(math.sqrt((14 / 62 - (6 / 62) ** 2) / 62)),
    )


def test_only_yes_and_no_can_disagree():
    assert disagreements(mean_of([1, 1, 0, 0]), mean_of([0, 0, 1, 0])) == (2, 1)
    assert disagreements(mean_of([1, 0.5]), mean_of([0, 0])) is None
    assert yeses(mean_of([1, 0, 1])) == 2
    assert yeses(mean_of([1, math.nan])) is None
    assert yeses(Examples(np.array([[1.0, 2.0], [1.0, 2.0]]))) is None  # one yes in two


def test_holm_of_ten_p_values():
    p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    corrected = [0.01, 0.072, 0.312, 0.312, 0.312, 0.312, 0.312, 0.615, 0.615, 0.615]
    assert holm(p) == pytest.approx(corrected)
    shuffled = np.random.default_rng(0).permutation(10)
    assert holm([p[index] for index in shuffled]) == pytest.approx([corrected[index] for index in shuffled])


def test_holm_stays_below_one_and_leaves_a_single_test_alone():
    assert holm([0.6, 0.9, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_what_is_detectable_is_found_four_times_in_five():
    rng = np.random.default_rng(11)
    n, simulations = 100, 3000
    true = detectable(1 / math.sqrt(n))
    p = stats.ttest_1samp(rng.normal(true, 1, size=(simulations, n)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / simulations) + 0.005)


@pytest.mark.parametrize(("alpha", "rows"), [(0.05, 6), (0.01, 8), (0.1, 5), (0.0625, 6)])
def test_fewer_rows_can_prove_nothing(alpha: float, rows: int):
    assert fewest_rows(alpha) == rows
    clear = [mean_of([0.0] * n) for n in (rows - 1, rows)], [mean_of([1.0] * n) for n in (rows - 1, rows)]
    below, enough = (permutation_p(one, two) for one, two in zip(*clear, strict=True))
    assert enough < alpha <= below
    assert mcnemar(0, rows) < alpha <= mcnemar(0, rows - 1)


def test_the_quotient_of_nothing_is_no_number():
    assert math.isnan(float(quotient(np.array([0.0, 0.0]))))
