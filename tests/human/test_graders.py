from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ftcli.human.graders import grader_table, position_bias
from tests.human.simulated import desk, guessing, honest, items, leftmost, says


def kinds(row: object) -> set[str]:
    return {flag.kind for flag in row.flags}  # type: ignore[attr-defined]


def test_shares_of_what_a_grader_says():
    of = items(8)
    votes = [
        says(of[0], "ann", 1, 2, seconds=1.4),
        says(of[1], "ann", 1, 1, seconds=1.5),
        says(of[2], "ann"),
        says(of[3], "ann", verdict="skip", ranks={}),
        says(of[4], "ann", 1, 2, seconds=20.0),
        says(of[0], "ann", 1, 2, is_repeat=True, seconds=3.0),
        says(of[1], "ann", 2, 1, is_repeat=True, seconds=3.0),
        says(of[3], "ann", 2, 1, is_repeat=True, seconds=3.0),  # skipped before: nothing to hold it against
    ]
    (row,) = grader_table(of, votes)
    assert (row.showings, row.repeats) == (8, 3)
    assert (row.ties, row.both_bad, row.skipped, row.fast) == (1 / 8, 1 / 8, 1 / 8, 1 / 8)
    assert row.median_seconds == 3
    assert (row.repeated, row.consistent) == (2, 0.5)
    assert (row.compared, row.with_others, row.flags) == (0, None, ())


def test_grader_is_held_against_the_mean_of_the_others():
    of = items(4)
    first = [(1, 2), (1, 2), (1, 1), (2, 1)]  # ann; an item that she ties is none that she decides
    votes = [says(item, "ann", *ranks) for item, ranks in zip(of, first, strict=True)]
    votes += [says(item, "bob", 1, 2) for item in of]
    votes += [
        says(of[0], "cyd", 1, 2),
        says(of[1], "cyd", 2, 1),
        says(of[3], "cyd", 1, 2),
    ]  # on i1 the others are split
    table = {row.grader: row for row in grader_table(of, votes)}
    assert (table["ann"].compared, table["ann"].with_others) == (2, 0.5)
    assert list(table) == ["ann", "bob", "cyd"]


def test_position_of_pairs_is_the_binomial_test():
    of = items(30)
    votes = [replace(says(item, "ann", 1, 2), order=tuple(c.id for c in item.distinct)[:: 1 if i < 22 else -1])
             for i, item in enumerate(of)]  # fmt: skip
    found = position_bias(votes)
    assert (found.chosen, found.first, found.expected) == (30, 22 / 30, 0.5)
    assert found.p == pytest.approx(stats.binomtest(22, 30).pvalue)


def test_position_of_three_answers_expects_a_third():
    of = items(12, "abc") + items(12, "ab")
    votes = [says(item, "ann", *range(1, 1 + len(item.candidates))) for item in of]  # always the first shown
    found = position_bias(votes)
    assert found.expected == pytest.approx((12 / 3 + 12 / 2) / 24)
    assert found.p == pytest.approx(2 * (1 / 3) ** 12 * (1 / 2) ** 12)


def test_position_needs_one_best_answer():
    of = items(2)
    assert position_bias([says(of[0], "ann", 1, 1), says(of[1], "ann")]).chosen == 0
    assert position_bias([]).p == 1


def test_position_raises_false_alarms_at_its_rate():
    of, p = items(60), []
    for seed in range(80):
        p.append(position_bias(desk(of, {"ann": guessing}, seed)).p)
    assert np.mean(np.array(p) < 0.05) <= 0.1


def test_left_clicker_is_flagged_for_it():
    of = items(30)
    table = {row.grader: row for row in grader_table(of, desk(of, {"ann": honest(0.9), "eve": leftmost}, 0))}
    assert "position" in kinds(table["eve"])
    assert kinds(table["ann"]) == set()
    assert any("shown first in 100% of 33 showings" in flag.reason for flag in table["eve"].flags)


def test_slight_leaning_to_a_side_is_shown_and_not_flagged():
    of = items(400)
    votes = [
        replace(says(item, "ann", 1, 2), order=tuple(c.id for c in item.distinct)[:: 1 if i % 100 < 58 else -1])
        for i, item in enumerate(of)
    ]
    (row,) = grader_table(of, votes)
    assert row.position.p < 0.01
    assert row.flags == ()


def test_noise_is_flagged_and_honest_graders_are_not():
    """Three graders who agree on 74 % of 50 items beside one who guesses; the rates over 40 desks."""
    of, flagged = items(50), Counter()
    rules = {"ann": honest(0.85), "bob": honest(0.85), "cyd": honest(0.85), "dan": guessing}
    for seed in range(40):
        flagged.update(row.grader for row in grader_table(of, desk(of, rules, seed)) if "noise" in kinds(row))
    assert flagged["dan"] >= 36
    assert flagged["ann"] + flagged["bob"] + flagged["cyd"] <= 3  # of 120


def test_hesitant_graders_are_not_called_noise():
    """People who agree on only 58 % of the items are weak evidence, but none of them is worse than the rest."""
    of, flagged = items(100), 0
    for seed in range(25):
        votes = desk(of, {name: honest(0.7) for name in ("ann", "bob", "cyd", "dan")}, seed)
        flagged += sum("noise" in kinds(row) for row in grader_table(of, votes))
    assert flagged <= 5  # of 100


def test_two_graders_are_not_told_apart():
    of = items(100)
    table = grader_table(of, desk(of, {"ann": honest(1.0), "dan": guessing}, 3))
    assert [row.with_others for row in table] == [pytest.approx(0.5, abs=0.15)] * 2
    assert not any("sides with the others" in flag.reason for row in table for flag in row.flags)


def test_lone_grader_who_contradicts_himself_is_flagged():
    of = items(20)
    votes = [says(item, "ann", 1, 2) for item in of] + [says(item, "ann", 2, 1, is_repeat=True) for item in of[:6]]
    (row,) = grader_table(of, votes)
    assert row.consistent == 0
    assert next(flag.reason for flag in row.flags if flag.kind == "noise").startswith(
        "says the same again of 0 of 6 repeated"
    )


def test_fast_votes_are_flagged_from_ten_on():
    of = items(12)
    votes = [
        says(item, "ann", *((1, 2) if i % 2 else (2, 1)), seconds=1.0 if i < 4 else 5.0) for i, item in enumerate(of)
    ]
    assert kinds(grader_table(of, votes)[0]) == {"fast"}
    assert kinds(grader_table(of, votes[:9])[0]) == set()


def test_judgement_of_an_unknown_item_is_an_error():
    of = items(2)
    with pytest.raises(ValueError, match="ann judges item i1"):
        grader_table(of[:1], [says(of[1], "ann", 1, 2)])
