"""Who judges what, and which answer is on which side."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from ftcli.human.plan import Showing, deal, showings
from ftcli.human.store import Candidate, Item
from tests.human.conftest import answers, pair, rank_task, review_item, review_task

PAIRS = [pair(number) for number in range(60)]
NAMES = ["ann", "bob", "cid", "dee", "eve"]


def firsts(plan: list[Showing]) -> list[Showing]:
    return [one for one in plan if not one.is_repeat]


@pytest.mark.parametrize("grader", NAMES)
def test_half_of_a_graders_pairs_have_each_model_on_the_left(grader: str) -> None:
    source = {one.id: one.source for item in PAIRS for one in item.candidates}
    sides = Counter(source[one.order[0]] for one in firsts(showings(rank_task(), PAIRS, grader, [grader])))
    assert sides == {"base": 30, "tuned": 30}


def test_each_pair_of_models_is_balanced_by_itself_however_the_candidates_are_listed() -> None:
    couples = [("a", "b"), ("c", "a"), ("b", "c")]
    items = [pair(number, *couples[number % 3][:: 1 if number % 2 else -1]) for number in range(61)]
    source = {one.id: one.source for item in items for one in item.candidates}
    plan = firsts(showings(rank_task(), items, "ann", ["ann"]))
    seen = Counter(tuple(source[id] for id in one.order) for one in plan)
    for one, other in couples:
        assert abs(seen[one, other] - seen[other, one]) <= 1
    assert sum(seen.values()) == 61


@pytest.mark.parametrize("size", [3, 4, 8])
def test_every_model_is_equally_often_in_every_place(size: int) -> None:
    items = [answers(number, size) for number in range(size * 6)]
    source = {one.id: one.source for item in items for one in item.candidates}
    plan = firsts(showings(rank_task(), items, "ann", ["ann"]))
    seen = Counter((source[id], place) for one in plan for place, id in enumerate(one.order))
    assert set(seen.values()) == {6}
    assert len(seen) == size * size


def test_sides_do_not_alternate_predictably() -> None:
    source = {one.id: one.source for item in PAIRS for one in item.candidates}
    sides = [source[one.order[0]] for one in firsts(showings(rank_task(), PAIRS, "ann", ["ann"]))]
    changes = sum(one != other for one, other in pairwise(sides))
    assert 18 < changes < 42  # a fair shuffle of 60 changes 30 times, standard deviation 3.8


def test_the_plan_of_a_grader_is_the_same_on_every_call_and_differs_between_graders_and_seeds() -> None:
    plans = [
        showings(rank_task(seed=seed), PAIRS, grader, ["ann", "bob"])
        for seed, grader in ((0, "ann"), (0, "ann"), (0, "bob"), (1, "ann"))
    ]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != plans[3]
    assert showings(rank_task(), PAIRS, "ann", ["bob", "ann", "ann"]) == plans[0]


@pytest.mark.parametrize(("overlap", "each"), [(1, 12), (2, 24), (5, 60), (9, 60)])
def test_each_item_goes_to_as_many_graders_as_wanted_and_none_has_more_work(overlap: int, each: int) -> None:
    dealt = deal(rank_task(overlap=overlap), PAIRS, NAMES)
    assert {name: len(items) for name, items in dealt.items()} == dict.fromkeys(NAMES, each)
    often = Counter(item.id for items in dealt.values() for item in items)
    assert often == {item.id: min(overlap, 5) for item in PAIRS}


def test_every_two_graders_share_items() -> None:
    dealt = {name: {one.id for one in items} for name, items in deal(rank_task(overlap=2), PAIRS, NAMES).items()}
    assert all(dealt[one] & dealt[other] for one in NAMES for other in NAMES)


def test_repeats_come_later_with_the_sides_swapped_and_are_as_many_as_asked() -> None:
    plan = showings(rank_task(repeat_share=0.1), PAIRS, "ann", ["ann"])
    places = {one.item: place for place, one in enumerate(plan) if not one.is_repeat}
    repeats = [(place, one) for place, one in enumerate(plan) if one.is_repeat]
    assert len(repeats) == 6
    for place, one in repeats:
        assert place - places[one.item] >= 20
        assert one.order == plan[places[one.item]].order[::-1]
    assert len({one.item for _, one in repeats}) == 6


@pytest.mark.parametrize(
    ("count", "share", "repeats"), [(1, 0.1, 0), (4, 0.1, 0), (5, 0.1, 1), (6, 1 / 3, 2), (60, 0.0, 0)]
)
def test_repeats_of_short_lists(count: int, share: float, repeats: int) -> None:
    plan = showings(rank_task(repeat_share=share), PAIRS[:count], "ann", ["ann"])
    assert sum(one.is_repeat for one in plan) == repeats
    assert sorted(one.item for one in firsts(plan)) == sorted(one.id for one in PAIRS[:count])


def test_identical_answers_are_never_shown_and_of_three_with_two_alike_two_are() -> None:
    same = Item("same", [], (Candidate.of("Yes.", "a"), Candidate.of("Yes.", "b")))
    alike = Item("alike", [], (Candidate.of("Yes.", "a"), Candidate.of("No.", "b"), Candidate.of(" Yes.\n", "c")))
    plan = showings(rank_task(), [same, alike], "ann", ["ann"])
    assert [one.item for one in plan] == ["alike"]
    assert set(plan[0].order) == {alike.candidates[0].id, alike.candidates[1].id}


def test_rows_to_review_are_dealt_and_never_repeated() -> None:
    items = [review_item(number) for number in range(30)]
    plan = showings(review_task(repeat_share=0.3), items, "ann", ["ann", "bob"])
    assert len(plan) == len({one.item for one in plan}) == 15
    assert {one.order for one in plan} == {()}


@pytest.mark.parametrize("settings", [{"kind": "quiz"}, {"overlap": 0}, {"repeat_share": 0.5}, {"wanted": -1}])
def test_a_task_that_cannot_be_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kind|overlap"):
        rank_task(**settings)
