from __future__ import annotations

from typing import Any

import pytest

from ftcli.human.store import Judgement
from ftcli.stages.review.config import NO_REASON, OTHER, TIE
from ftcli.stages.review.decide import Reviewed, decide, reason_in, standing
from tests.stages.review.reviewing import TEACHER, row, with_answer

BETTER, BEST = with_answer(row(1), "2"), with_answer(row(1), "1 + 1 = 2")


def said(verdict: str, grader: str = "ann", **more: Any) -> Judgement:
    return Judgement(task="t", item="r1", grader=grader, verdict=verdict, **more)  # type: ignore[arg-type]


REASONS = ("wrong", "unsafe")
ACCEPT, REJECT = said("accept"), said("reject", "bob", reason="wrong")


@pytest.mark.parametrize(
    ("judgements", "verdict"),
    [
        ([ACCEPT], "accept"),
        ([REJECT], "reject"),
        ([said("edit", edited=BETTER)], "edit"),
        ([ACCEPT, said("accept", "bob")], "accept"),
        ([ACCEPT, REJECT], "reject"),
        ([ACCEPT, REJECT, said("accept", "cy")], "accept"),
        ([ACCEPT, REJECT, said("reject", "cy")], "reject"),
        ([ACCEPT, said("edit", "bob", edited=BETTER)], "edit"),
        ([ACCEPT, said("edit", "bob", edited=BETTER), said("accept", "cy")], "accept"),
        ([ACCEPT, said("edit", "bob", edited=BETTER), said("reject", "cy", reason="wrong")], "edit"),
    ],
)
def test_the_majority_keeps_or_rejects_a_tie_rejects_and_half_of_the_keepers_edit(
    judgements: list[Judgement], verdict: str
) -> None:
    decision = decide(judgements, 1, REASONS)
    assert decision is not None
    assert decision.verdict == verdict


def test_a_row_waits_until_enough_people_have_judged_it() -> None:
    assert decide([], 1, REASONS) is None
    assert decide([ACCEPT], 2, REASONS) is None
    assert decide([ACCEPT, said("accept", "bob")], 2, REASONS) is not None


def test_a_rejected_row_tells_the_reason_that_most_gave() -> None:
    votes = [
        said("reject", "a", reason="unsafe"),
        said("reject", "b", reason="wrong"),
        said("reject", "c", reason="wrong"),
    ]
    decision = decide(votes, 1, REASONS)
    assert decision is not None
    assert (decision.reason, decision.reviewers) == ("wrong", ("a", "b", "c"))
    tie = decide([ACCEPT, REJECT], 2, REASONS)
    assert tie is not None
    assert tie.reason == TIE
    silent = decide([said("reject")], 1, REASONS)
    assert silent is not None
    assert silent.reason == NO_REASON


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("wrong", "wrong"),
        (" Wrong ", "wrong"),
        ("wrong: 1 + 1 is 2", "wrong"),
        ("Unsafe, since it names\na person", "unsafe"),
        ("wrongly put", OTHER),
        ("I do not like it", OTHER),
        (" ", NO_REASON),
    ],
)
def test_a_reason_in_a_reviewers_own_words_is_counted_under_the_one_it_begins_with(text: str, reason: str) -> None:
    assert reason_in(text, REASONS) == reason


def test_of_several_edits_the_last_one_counts() -> None:
    decision = decide(
        [said("edit", "a", edited=BETTER, at="2026-01-01"), said("edit", "b", edited=BEST, at="2026-01-02")], 2, REASONS
    )
    assert decision is not None
    assert decision.row == BEST
    assert decision.at == "2026-01-02"


def test_what_a_person_says_last_of_a_row_stands_and_skips_and_repeats_say_nothing() -> None:
    again = said("accept", "bob", note="on second thought")
    assert standing([REJECT, ACCEPT, again]) == {"r1": [ACCEPT, again]}
    assert standing([ACCEPT, said("reject", is_repeat=True)]) == {"r1": [ACCEPT]}
    assert standing([said("skip")]) == {}
    assert standing([ACCEPT, said("skip")]) == {}


def test_a_kept_row_tells_who_decided_beside_where_it_came_from() -> None:
    accepted = Reviewed("train", row(1), decide([said("accept", at="2026-01-01")], 1, REASONS)).result()
    assert accepted == {
        **row(1),
        "meta": {
            "prov": {
                "origin": "synthetic",
                "teacher": TEACHER,
                "review": {"decision": "accept", "reviewers": ["ann"], "at": "2026-01-01"},
            }
        },
    }
    edited = Reviewed("train", row(1), decide([said("edit", edited=BETTER)], 1, REASONS)).result()
    assert edited is not None
    assert edited["messages"][-1]["content"] == "2"
    prov = {"origin": "edited", "teacher": TEACHER, "review": {"decision": "edit", "reviewers": ["ann"]}}
    assert edited["meta"]["prov"] == prov
    unseen = Reviewed("train", {"id": "x", "text": "y"}).result()
    assert unseen == {"id": "x", "text": "y", "meta": {"prov": {"review": {"decision": "unreviewed"}}}}
    assert Reviewed("train", row(1), decide([REJECT], 1, REASONS)).result() is None
