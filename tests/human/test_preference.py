from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ftcli.human.length import length_effect
from ftcli.human.preference import detectable_rate, detectable_text, sign_test, wilson, win_rate, win_rates
from ftcli.human.scores import Score, collapse
from ftcli.human.strengths import bradley_terry
from ftcli.human.tasks import Item
from tests.human.simulated import items, says


def scored(wins: int, ties: int, losses: int) -> list[Score]:
    values = [1] * wins + [0] * ties + [-1] * losses
    return [Score(f"i{i}", value, 1, 0) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        (0, 10, 0, 0.277533),
        (7, 10, 0.396778, 0.892209),
        (60, 100, 0.502003, 0.690599),
        (115, 200, 0.505709, 0.641464),
    ],
)
def test_wilson_interval(wins: int, n: int, low: float, high: float):
    assert wilson(wins, n) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(
    ("wins", "n", "p"),
    [
        (60, 100, 0.05688793),
        (7, 10, 0.34375),
        (9, 10, 0.02148438),
        (0, 6, 0.03125),
        (115, 200, 0.04003719),
        (5, 10, 1),
        (0, 0, 1),
    ],
)
def test_sign_test_is_exact(wins: int, n: int, p: float):
    assert sign_test(wins, n - wins) == pytest.approx(p, abs=1e-8)


def test_win_rate_with_ties_as_halves():
    found = win_rate(scored(61, 22, 37))
    assert (found.items, found.wins, found.ties, found.losses) == (120, 61, 22, 37)
    assert found.rate == 0.6
    assert (found.low, found.high) == pytest.approx((0.521, 0.675), abs=0.005)
    assert found.decided == pytest.approx(61 / 98)
    assert found.p == pytest.approx(0.01969018, abs=1e-8)


def test_p_decides_where_the_interval_disagrees():
    found = win_rate(scored(60, 0, 40))
    assert found.decided_low is not None
    assert found.decided_low > 0.5
    assert "No difference is shown." in found.text("base", "tuned")


def test_text_names_the_preferred_and_what_could_be_seen():
    text = win_rate(scored(20, 10, 70)).text("base", "tuned")
    assert "win rate 0.250" in text
    assert "base is preferred." in text
    assert "With 90 decided items only 65/35 or clearer can be detected (80% power)." in text


def test_nothing_judged_is_said():
    found = win_rate([])
    assert (found.rate, found.decided, found.low, found.p, found.detectable) == (None, None, None, 1, None)
    assert "No item compares tuned with base yet." in found.text("base", "tuned")


def test_outcomes_all_alike_have_no_bootstrap_interval_but_wilson_s():
    found = win_rate(scored(8, 0, 0))
    assert (found.rate, found.low, found.high) == (1, None, None)
    assert found.decided_low == pytest.approx(0.675592, abs=1e-6)  # n / (n + z^2)


def test_only_ties_have_no_decided_rate():
    found = win_rate(scored(0, 5, 0))
    assert (found.rate, found.decided, found.decided_low, found.p) == (0.5, None, None, 1)
    assert found.text("a", "b").endswith("With 0 decided items nothing can be detected, however clear it is.")


@pytest.mark.parametrize(("rate", "n"), [(0.55, 786), (0.58, 312), (0.60, 199), (0.65, 90), (0.70, 49), (0.75, 30)])
def test_detectable_rate_is_that_of_a_power_table(rate: float, n: int):
    found = detectable_rate(n)
    assert found is not None
    assert found == pytest.approx(rate, abs=0.005)


def test_detectable_rate_has_its_power_in_a_simulation():
    rate = detectable_rate(100)
    assert rate is not None
    wins = np.random.default_rng(0).binomial(100, rate, size=20_000)
    p = {w: stats.binomtest(int(w), 100).pvalue for w in np.unique(wins)}
    assert np.mean([p[w] < 0.05 for w in wins]) == pytest.approx(0.8, abs=0.01)


def test_five_items_can_show_nothing():
    assert detectable_rate(5) is None
    assert detectable_rate(6) is not None
    assert "nothing" in detectable_text(5)


def test_every_two_sources_are_compared():
    three = items(4, "abc")
    found = win_rates(three, [says(item, "ann", 3, 2, 1) for item in three])
    assert [(versus.first, versus.second, versus.result.wins) for versus in found] == [
        ("a", "b", 4),
        ("a", "c", 4),
        ("b", "c", 4),
    ]


def test_wilson_covers_at_its_rate():
    """Its exact coverage, averaged over true shares."""
    shares = np.linspace(0.1, 0.9, 81)
    ends = np.array([wilson(wins, 60) for wins in range(61)])
    chance = stats.binom.pmf(np.arange(61)[:, None], 60, shares)
    covered = ((ends[:, :1] <= shares) & (shares <= ends[:, 1:])) * chance
    assert covered.sum(axis=0).mean() == pytest.approx(0.95, abs=0.005)
    assert covered.sum(axis=0).min() > 0.91


def test_bootstrap_covers_at_its_rate():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        found = win_rate(scored(*rng.multinomial(100, [0.5, 0.2, 0.3])), resamples=500)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.6 <= found.high
    assert 0.91 <= inside / 300 <= 0.98


def test_pooled_votes_raise_false_alarms_and_items_do_not():
    """50 items x 3 graders who see the same merits of an item (Beta(1.3, 1.3)), with no difference over all items."""
    rng = np.random.default_rng(0)
    merit = rng.beta(1.3, 1.3, size=(4000, 50, 1))
    votes = np.where(rng.random((4000, 50, 3)) < merit, 1, -1)
    p = cache(sign_test)
    pooled = [p(won, 150 - won) for won in (votes == 1).sum(axis=(1, 2)).tolist()]
    by_item = [
        p(won, 50 - won) for won in (votes.mean(axis=2) > 0).sum(axis=1).tolist()
    ]  # of three votes there are no ties
    assert 0.09 < np.mean(np.array(pooled) < 0.05) < 0.15
    assert np.mean(np.array(by_item) < 0.05) <= 0.05


def test_collapse_is_the_simulation_s_mean_of_an_item():
    votes = np.where(np.random.default_rng(1).random((20, 3)) < 0.5, 1, -1)
    twenty = items(20)
    said = [
        says(item, grader, *((2, 1) if vote > 0 else (1, 2)))
        for item, row in zip(twenty, votes, strict=True)
        for grader, vote in zip("xyz", row, strict=True)
    ]
    assert [score.value for score in collapse(twenty, said, "a", "b")] == pytest.approx(votes.mean(axis=1).tolist())


ballots = st.lists(
    st.lists(st.sampled_from([(1, 2), (2, 1), (1, 1), ()]), min_size=1, max_size=3), min_size=1, max_size=12
)


@settings(max_examples=40, deadline=None)
@given(ballots)
def test_swapping_the_sources_flips_every_sign(given_votes: list[list[tuple[int, ...]]]):
    there = items(len(given_votes), "ab", lambda i, name: name * (1 + (i * 7 + 5 * (name == "b")) % 11))
    back = [Item(item.id, [], item.candidates[::-1]) for item in there]
    votes = [
        says(item, grader, *ranks)
        for item, ballot in zip(there, given_votes, strict=True)
        for grader, ranks in zip("xyz", ballot, strict=False)
        if item.shown
    ]
    scores, swapped = collapse(there, votes, "a", "b"), collapse(there, votes, "b", "a")
    assert [(-s.value, -s.outcome, -s.longer_by) for s in scores] == [
        (s.value, s.outcome, s.longer_by) for s in swapped
    ]
    one, other = win_rate(scores, resamples=200), win_rate(swapped, resamples=200)
    assert (one.wins, one.ties, one.losses, one.p) == (other.losses, other.ties, other.wins, other.p)
    assert one.rate is not None
    assert one.rate == pytest.approx(1 - (other.rate or 0))
    for low, high in [("low", "high"), ("decided_low", "decided_high")]:
        if (end := getattr(one, low)) is not None:
            assert (end, getattr(one, high)) == pytest.approx(
                (1 - getattr(other, high), 1 - getattr(other, low)), abs=1e-9
            )
    length, flipped = length_effect(scores), length_effect(swapped)
    assert (length.longer, length.p) == (flipped.longer, flipped.p)
    if length.controlled is not None and flipped.controlled is not None:
        assert length.controlled == pytest.approx(1 - flipped.controlled, abs=1e-3)
    strengths = {s.source: s.beta for s in bradley_terry(there, votes, resamples=2)}
    reversed_ = {s.source: s.beta for s in bradley_terry(back, votes, resamples=2)}
    assert strengths["b"] - strengths["a"] == pytest.approx(reversed_["b"] - reversed_["a"], abs=1e-6)
    assert strengths["a"] == reversed_["b"] == 0
