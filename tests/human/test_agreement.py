from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest

from ftcli.human.agreement import cohen_kappa, krippendorff_alpha, rank_agreement, review_agreement
from tests.human.simulated import desk, guessing, honest, items, says

_ = math.nan
CLASSIC = [  # Krippendorff 2011, four coders and twelve units
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
VOTES = ["ABtAAB-", "ABAABBA", "-BtAAtA"]


def counts(rows: list, values: object) -> np.ndarray:
    return np.array([[list(unit).count(value) for value in values] for unit in zip(*rows, strict=True)])


def test_alpha_of_the_classic_table():
    table = counts(CLASSIC, range(1, 6))
    assert krippendorff_alpha(table) == pytest.approx(0.743421, abs=1e-6)
    assert krippendorff_alpha(table, "ordinal") == pytest.approx(0.815388, abs=1e-6)


def test_alpha_of_votes():
    table = counts(VOTES, "BtA")
    assert krippendorff_alpha(table) == pytest.approx(0.5)
    assert krippendorff_alpha(table, "ordinal") == pytest.approx(0.628543, abs=1e-6)


def test_kappa_of_two_graders():
    first, second = (["AtB".index(vote) for vote in votes] for votes in ("AABtBAABtA", "ABBtBAAAAA"))
    assert cohen_kappa(first, second) == pytest.approx(0.491525, abs=1e-6)
    assert cohen_kappa([1, 1], [1, 1]) is None
    assert cohen_kappa([], []) is None


def ballots(rows: list[str]) -> tuple[list, list]:
    of = items(len(rows[0]))
    ranks = {"A": (1, 2), "B": (2, 1), "t": (1, 1)}
    votes = [
        says(item, f"g{g}", *ranks[vote])
        for g, row in enumerate(rows)
        for item, vote in zip(of, row, strict=True)
        if vote != "-"
    ]
    return of, votes


def test_rankings_are_entered_both_ways_round():
    found = rank_agreement(*ballots(VOTES), resamples=100)
    either = [[{"A": 1, "t": 0, "B": -1, "-": math.nan}[vote] for vote in row] for row in VOTES]
    table = np.array([row + [-vote for vote in row] for row in either])
    assert found.alpha == pytest.approx(krippendorff.alpha(table, level_of_measurement="nominal"))
    assert found.ordinal == pytest.approx(krippendorff.alpha(table, level_of_measurement="ordinal"))
    assert (found.graders, found.items, found.units) == (3, 7, 7)
    assert found.raw == pytest.approx((1 + 3 + 1 + 3 + 1 + 1 + 1) / 17)  # agreeing pairs of graders, item by item
    assert [(pair.first, pair.second, pair.units, round(pair.raw, 3)) for pair in found.pairs] == [
        ("g0", "g1", 6, 0.667),
        ("g0", "g2", 5, 0.8),
        ("g1", "g2", 6, 0.5),
    ]
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.5 < found.high


def test_swapping_the_sources_changes_no_agreement():
    there = rank_agreement(*ballots(VOTES), resamples=50)
    swapped = rank_agreement(*ballots([row.translate(str.maketrans("AB", "BA")) for row in VOTES]), resamples=50)
    assert there.alpha == pytest.approx(swapped.alpha)
    assert there.raw == swapped.raw


def test_graders_who_rightly_prefer_one_model_are_not_called_noise():
    found = rank_agreement(*ballots(["A" * 18 + "AB", "A" * 18 + "BA"]), resamples=50)  # 90 % alike
    labelled = krippendorff_alpha(counts(["A" * 18 + "AB", "A" * 18 + "BA"], "AB"))
    assert labelled is not None
    assert found.alpha is not None
    assert labelled < 0  # with the sources as labels
    assert found.alpha > 0.75
    assert found.words == "alpha = 0.80: graders agree."


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["ABABABAB", "AABBAABB"], "mostly noise"),
        (["AB", "AB"], "graders agree."),
        (["AB--", "--AB"], "No item was judged by two"),
        (["tt", "tt"], "Every vote is the same"),
        (["ABABABAB", "ABABABBA"], "many together still count"),
    ],
)
def test_words_for_alpha(rows: list[str], words: str):
    assert words in rank_agreement(*ballots(rows), resamples=20).words


def test_rankings_of_three_are_three_units_of_one_item():
    of = items(2, "abc")
    votes = [says(item, grader, 1, 2, 3) for item in of for grader in ("ann", "bob")]
    found = rank_agreement(of, votes, resamples=20)
    assert (found.items, found.units, found.raw, found.alpha) == (2, 6, 1, 1)


def test_repeats_and_skips_are_left_out():
    of = items(1)
    votes = [
        says(of[0], "ann", 1, 2),
        says(of[0], "ann", 2, 1, is_repeat=True),
        says(of[0], "bob", verdict="skip", ranks={}),
    ]
    assert rank_agreement(of, votes).units == 0


def test_reviews_agree_by_verdict():
    of = items(4)
    verdicts = [("accept", "accept"), ("reject", "reject"), ("edit", "accept"), ("accept", "accept")]
    votes = [
        says(item, grader, verdict=verdict, ranks={})
        for item, pair in zip(of, verdicts, strict=True)
        for grader, verdict in zip(("ann", "bob"), pair, strict=True)
    ]
    found = review_agreement(votes, resamples=50)
    table = [[2, 0, 1, 2], [2, 0, 2, 2]]
    assert found.raw == 0.75
    assert found.alpha == pytest.approx(krippendorff.alpha(table, level_of_measurement="nominal"))
    assert found.ordinal == pytest.approx(krippendorff.alpha(table, level_of_measurement="ordinal"))


def test_interval_of_alpha_covers_at_its_rate():
    """Two graders who each are right with 0.9 agree on 0.82 of the pairs, and chance gives a half: alpha is 0.64."""
    hundred, inside = items(100), 0
    for seed in range(60):
        votes = desk(hundred, {"ann": honest(0.9), "bob": honest(0.9)}, seed)
        found = rank_agreement(hundred, votes, resamples=100, seed=seed)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.64 <= found.high
    assert inside >= 52


def test_guessing_graders_have_no_agreement():
    hundred = items(200)
    found = rank_agreement(hundred, desk(hundred, {"ann": guessing, "bob": guessing}, 0), resamples=50)
    assert found.alpha == pytest.approx(0, abs=0.15)
    assert "mostly noise" in found.words


def test_judgement_of_an_unknown_item_is_an_error():
    of = items(2)
    with pytest.raises(ValueError, match="ann judges item i1"):
        rank_agreement(of[:1], [says(of[1], "ann", 1, 2)])
