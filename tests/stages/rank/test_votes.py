from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData
from ftcli.human.store import Store
from ftcli.human.tasks import Judgement
from ftcli.stages.rank.config import RankConfig
from ftcli.stages.rank.questions import task_of
from ftcli.stages.rank.votes import publish, standing
from tests.stages.rank.judging import item_of

ITEMS = [
    replace(item_of("x", "y"), id="one"),
    replace(item_of("v", "w"), id="two"),
    replace(item_of("s", "s"), id="same"),
]
TASK = task_of(RankConfig(), ITEMS)


def vote(item: int = 0, best: int = 0, **fields: Any) -> Judgement:
    ids = [one.id for one in ITEMS[item].distinct]
    given = {"task": TASK.id, "item": ITEMS[item].id, "grader": "ann", "verdict": "ranked", "order": tuple(ids)}
    ranks = {id: 1 if place == best else 2 for place, id in enumerate(ids)}
    return Judgement(**{**given, "ranks": ranks, "at": "2026-01-01T00:00:00+00:00", **fields})


def file_of(path: Path, *votes: Judgement) -> Path:
    path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in votes))
    return path


def test_votes_of_a_file_stand_whichever_task_they_were_made_in(tmp_path: Path) -> None:
    votes = [vote(task="rank-elsewhere"), vote(1), vote(1, is_repeat=True), vote(1, grader="bob")]
    found = standing(TASK, ITEMS, file_of(tmp_path / "votes.jsonl", *votes), None)
    assert found == [vote(), *votes[1:]]


def test_of_a_showing_judged_in_the_file_and_at_the_desk_the_newer_one_stands(tmp_path: Path) -> None:
    desk = tmp_path / "human" / "desk.sqlite"
    publish(desk, TASK, ITEMS)
    publish(desk, TASK, ITEMS)
    store = Store(desk)
    store.judge(vote(0, best=1))
    store.judge(vote(1, best=1))
    store.judge(vote(1, best=1, grader="bob"))
    store.close()
    older, newer = vote(0, at="2025-12-31T00:00:00+00:00"), vote(1, at="2026-01-02T00:00:00+00:00")
    found = standing(TASK, ITEMS, file_of(tmp_path / "votes.jsonl", older, newer, vote(1, grader="bob")), desk)
    assert found == [vote(0, best=1), newer, vote(1, best=1, grader="bob")], "equally old: the desk's"


def test_what_was_said_before_counts_when_the_overlap_changes_but_not_under_other_guidelines(tmp_path: Path) -> None:
    desk = tmp_path / "desk.sqlite"
    publish(desk, TASK, ITEMS)
    store = Store(desk)
    store.judge(vote())
    store.close()
    more, other = task_of(RankConfig(overlap=2), ITEMS), task_of(RankConfig(guidelines="be brief"), ITEMS)
    assert [one.task for one in standing(more, ITEMS, None, desk)] == [more.id]
    assert standing(more, ITEMS[1:], None, desk) == []
    assert standing(other, ITEMS, None, desk) == []


def test_a_desk_that_is_not_there_yet_is_not_made_by_looking(tmp_path: Path) -> None:
    assert standing(TASK, ITEMS, None, tmp_path / "desk.sqlite") == []
    assert not (tmp_path / "desk.sqlite").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"votes.jsonl:2: no JSON"),
        ("[]", r"votes.jsonl:2: a JSON object is needed"),
        ('{"task": "t"}', r"votes.jsonl:2: no item"),
        (json.dumps(asdict(vote(item=0)) | {"item": "three"}), r"votes.jsonl:2: item 'three' is not among the 2 that"),
        (json.dumps(asdict(vote(item=0)) | {"ranks": {}}), r"votes.jsonl:2: ranks: "),
        (json.dumps(asdict(vote(item=0)) | {"item": "same"}), r"votes.jsonl:2: item 'same' is not among"),
    ],
)
def test_what_is_no_vote_is_named_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = file_of(tmp_path / "votes.jsonl", vote())
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(BadData, match=message):
        standing(TASK, ITEMS, path, None)
