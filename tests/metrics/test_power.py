from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ftcli.core.errors import UsageError
from ftcli.metrics.power import (
    Level,
    accuracy_change,
    accuracy_rows,
    decided_pairs,
    decided_pairs_exact,
    paired_effect,
    paired_rows,
    power_text,
    sign_test_power,
    total_pairs,
    win_rate,
)

WINS = [0.55, 0.58, 0.60, 0.65, 0.70, 0.75, 0.80]


@pytest.mark.parametrize(
    ("win", "normal", "exact", "quarter_tied"),
    list(
        zip(
            WINS,
            [783, 305, 194, 85, 47, 29, 20],
            [786, 312, 199, 90, 49, 30, 20],
            [1044, 406, 259, 114, 63, 39, 26],
            strict=True,
        )
    ),
)
def test_votes_that_a_win_rate_needs(win: float, normal: int, exact: int, quarter_tied: int):
    assert math.ceil(decided_pairs(win)) == normal
    assert decided_pairs_exact(win) == exact
    assert decided_pairs_exact(1 - win) == exact  # losing as clearly
    assert total_pairs(decided_pairs(win), 0.25) == quarter_tied


@pytest.mark.parametrize(("n", "win"), [(20, 0.8), (37, 0.7), (90, 0.35)])
def test_power_of_the_sign_test_is_the_chance_that_binomtest_rejects(n: int, win: float):
    rejected = [k for k in range(n + 1) if stats.binomtest(k, n).pvalue < 0.05]
    expected = stats.binom.pmf(rejected, n, win).sum()
    assert sign_test_power(np.array([n]), win, 0.05)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n", "win"), [(30, 0.746), (50, 0.694), (100, 0.638), (200, 0.599), (400, 0.570), (800, 0.550)]
)
def test_the_win_rate_that_votes_show(n: int, win: float):
    assert win_rate(n) == pytest.approx(win, abs=0.0011)


def test_too_few_votes_show_no_win_rate():
    assert win_rate(5) is None
    assert win_rate(6) is not None


@pytest.mark.parametrize(("effect", "rows"), [(0.1, 785), (0.2, 197), (0.3, 88), (0.5, 32)])
def test_rows_that_a_standardised_effect_needs(effect: float, rows: int):
    assert paired_rows(effect) == rows
    assert paired_effect(rows) <= effect < paired_effect(rows - 1)


@pytest.mark.parametrize(
    ("n", "tenth", "fifth"), [(100, 8.9, 12.5), (200, 6.3, 8.9), (400, 4.4, 6.3), (1000, 2.8, 4.0)]
)
def test_the_accuracy_change_that_rows_show(n: int, tenth: float, fifth: float):
    assert 100 * accuracy_change(n, 0.1) == pytest.approx(tenth, abs=0.051)
    assert 100 * accuracy_change(n, 0.2) == pytest.approx(fifth, abs=0.051)
    assert accuracy_rows(accuracy_change(n, 0.2), 0.2) == n


def test_no_plan_promises_what_fewer_than_six_changed_rows_would_have_to_show():
    assert accuracy_change(20, 0.05) == pytest.approx(6 / 20)  # 2 / 2^6 is the first p below 0.05
    assert accuracy_rows(0.05, 0.05, Level(power=0.3)) == 120


def test_mcnemars_test_finds_the_planned_change_as_often_as_planned():
    change, discordance, simulations = 0.1, 0.25, 2000
    n = accuracy_rows(change, discordance)
    rng = np.random.default_rng(0)
    shares = [(discordance - change) / 2, (discordance + change) / 2, 1 - discordance]
    worse, better, _ = rng.multinomial(n, shares, size=simulations).T
    found = np.mean([stats.binomtest(b, a + b).pvalue < 0.05 for a, b in zip(worse, better, strict=True)])
    assert 0.76 <= found <= 0.88  # the exact test is a little below the approximation, the larger variance above


def test_more_power_and_a_smaller_alpha_take_more_rows():
    # (1.959964 + 1.281552)^2 / 0.04 = 262.7 and (2.575829 + 0.841621)^2 / 0.04 = 292.0, of tables of the normal distribution
    assert paired_rows(0.2, Level(power=0.9)) == 263
    assert paired_rows(0.2, Level(alpha=0.01)) == 292


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ("win=0.6", ["199 of them", "194 by the normal", "0.8 power, two-sided alpha 0.05"]),
        ("win=0.6,ties=0.25", ["199 of them", "266 pairs (259)"]),
        ("win=0.501", ["1,962,218 of them (sign test)"]),
        ("win = 0.501, ties = 0.5", ["3,924,436 pairs."]),
        ("d=0.2", ["197 rows"]),
        ("d=-0.2,power=0.9", ["263 rows", "0.9 power"]),
        ("change=0.05,sd=0.25,alpha=0.01", ["292 rows", "alpha 0.01"]),
        ("accuracy=0.089,discordance=0.1", ["8.9 points", "10 %", "100 rows (McNemar's test)"]),
        ("n=100", ["0.28 standard deviations", "8.86 points", "12.5 points", "0.638 among 100 decided"]),
        ("n=100,sd=0.2", ["a mean change of 0.056\n"]),
        ("n=200,ties=0.5", ["0.638 among 100 decided"]),
        ("n=400,discordance=0.2", ["6.26 points", "20 %"]),
        ("n=30,discordance=0.1", ["no change of accuracy"]),
        ("n=8,ties=0.5", ["no win rate among 4 decided"]),
        ("n=5", ["5 rows or votes show nothing", "needs 6 at the least"]),
    ],
)
def test_the_answer_in_words(effect: str, said: list[str]):
    text = power_text(effect)
    for part in said:
        assert part in text


def test_the_reverse_question_answers_only_what_was_asked():
    assert "win rate" not in power_text("n=100,sd=0.2")
    assert "mean change" not in power_text("n=100,ties=0.2")


@pytest.mark.parametrize(
    ("effect", "message", "hint"),
    [
        ("wins=0.6", "unknown key wins; known: win, ties, d, change, sd", "did you mean win"),
        ("", "unknown key (nothing); known: win", "as --power win=0.6"),
        ("win", "win=?: a win rate above 0", "as --power"),
        ("win=much", "win=much: a win rate", "as --power"),
        ("win=0.5", "win=0.5: a win rate above 0 and up to 1, not 0.5", "as --power"),
        ("win=60", "win=60: a win rate", "as --power"),
        ("win=0.6,ties=1", "ties=1: a share from 0 to below 1", "as --power"),
        ("d=0", "d=0: a change in standard deviations, not 0", "as --power"),
        ("d=nan", "d=nan: a change", "as --power"),
        ("d=0.2,d=0.3", "d is given twice", "as --power"),
        ("d=0.2,ties=0.3", "ties says nothing beside d, which takes power, alpha", "as --power"),
        ("d=0.2,n=100", "one of win, d, change, accuracy, n is needed, not d and n", "as --power"),
        ("power=0.9", "one of win, d, change, accuracy, n is needed", "as --power"),
        ("change=0.05", "change needs sd", "write change=0.05,sd=0.2"),
        ("change=0.05,sd=0", "sd=0: a standard deviation above 0", "as --power"),
        ("accuracy=0.05", "accuracy needs discordance", "write accuracy=0.05,discordance=0.2"),
        ("accuracy=0.3,discordance=0.1", "cannot change by more than the discordance=0.1", "as --power"),
        ("n=1", "n=1: a whole number of rows or votes, 2 or more", "as --power"),
        ("n=10.5", "n=10.5: a whole number", "as --power"),
        ("d=0.2,alpha=1", "alpha=1: a chance between 0 and 1", "as --power"),
        ("d=0.2,power=0.01", "power=0.01 must be above alpha=0.05", "as --power"),
    ],
)
def test_a_wrong_question_names_the_key_and_what_is_known(effect: str, message: str, hint: str):
    with pytest.raises(UsageError) as caught:
        power_text(effect)
    assert caught.value.message.startswith("--power: ")
    assert message in caught.value.message
    assert hint in caught.value.hint
