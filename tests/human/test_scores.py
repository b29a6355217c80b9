from __future__ import annotations

import pytest

from ftcli.human.scores import collapse, pair_votes, sources
from ftcli.human.tasks import Candidate, Item
from tests.human.simulated import items, says


def outcomes(of: list[Item], judgements: list, first: str = "a", second: str = "b") -> list[int]:
    return [score.outcome for score in collapse(of, judgements, first, second)]


def test_graders_of_an_item_become_one_score():
    one = items(1)
    votes = [says(one[0], "ann", 2, 1), says(one[0], "bob", 2, 1), says(one[0], "cyd", 1, 2)]
    (score,) = collapse(one, votes, "a", "b")
    assert (score.value, score.outcome, score.graders) == (pytest.approx(1 / 3), 1, 3)


def test_thirds_that_cancel_are_a_tie():
    item = items(1, "abbb")[0]  # one answer of a, three texts of b
    item = Item("i0", [], tuple(Candidate.of(f"text {i}", c.source) for i, c in enumerate(item.candidates)))
    votes = [
        says(item, "ann", 2, 1, 3, 3),
        says(item, "bob", 2, 1, 1, 3),
        says(item, "cyd", 1, 1, 1, 1),
    ]  # -1/3, 1/3, 0
    assert outcomes([item], votes) == [0]


def test_ranking_of_three_is_one_score_for_each_two_sources():
    three = items(1, "abc")
    votes = [says(three[0], "ann", 3, 1, 1)]
    assert outcomes(three, votes, "a", "b") == outcomes(three, votes, "a", "c") == [1]
    assert outcomes(three, votes, "b", "c") == [0]
    assert outcomes(three, votes, "c", "a") == [-1]


def test_several_answers_of_a_source_are_one_score():
    item = Item("i", [], tuple(Candidate.of(f"{name}{i}", name) for name in "ab" for i in range(2)))
    (score,) = collapse(
        [item], [says(item, "ann", 4, 1, 2, 3)], "a", "b"
    )  # b wins against a0 twice, loses against a1 twice
    assert (score.value, score.outcome) == (0, 0)
    (score,) = collapse([item], [says(item, "ann", 4, 2, 1, 3)], "a", "b")  # and wins three of four
    assert (score.value, score.outcome) == (0.5, 1)


def test_both_bad_is_a_tie_and_a_skip_is_nothing():
    two = items(2)
    votes = [says(two[0], "ann"), says(two[1], "ann", verdict="skip", ranks={})]
    assert outcomes(two, votes) == [0]
    assert pair_votes(two[1], votes[1]) == {}


def test_repeats_do_not_count_twice():
    one = items(1)
    votes = [says(one[0], "ann", 2, 1), says(one[0], "ann", 1, 2, is_repeat=True)]
    assert [(score.value, score.graders) for score in collapse(one, votes, "a", "b")] == [(1, 1)]


def test_same_text_is_a_tie_that_nobody_is_asked():
    same = Item("s", [], (Candidate.of("yes", "a"), Candidate.of("yes", "b")))
    (score,) = collapse([same], [], "a", "b")
    assert (score.outcome, score.graders) == (0, 0)


def test_same_text_beside_a_third_is_a_tie_once_judged():
    item = Item("s", [], (Candidate.of("yes", "a"), Candidate.of("yes", "b"), Candidate.of("no", "c")))
    assert collapse([item], [], "a", "b") == []
    votes = [says(item, "ann", 2, 1)]
    assert outcomes([item], votes, "a", "b") == [0]
    assert outcomes([item], votes, "b", "c") == [1]


def test_length_is_of_the_second_less_the_first():
    item = Item("i", [], (Candidate.of("abc", "a"), Candidate.of("abcdefgh", "b")))
    assert collapse([item], [says(item, "ann", 1, 2)], "a", "b")[0].longer_by == 5


def test_sources_are_in_the_order_of_the_items():
    assert sources(items(3, "cab")) == ["c", "a", "b"]


def test_judgement_of_an_unknown_item_is_an_error():
    two = items(2)
    with pytest.raises(ValueError, match="ann judges item i1"):
        collapse(two[:1], [says(two[1], "ann", 1, 2)], "a", "b")
