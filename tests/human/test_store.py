"""The record of votes: nothing acknowledged is lost, nothing is changed, and a wrong judgement is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, Corrupt, DiskError, FtcliError, UsageError
from ftcli.human import store as store_module
from ftcli.human.store import Candidate, Item, Judgement, Store
from ftcli.human.tasks import candidate_id
from tests.human.conftest import pair, rank_task, review_item, review_task, vote

PAIRS = [pair(number) for number in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "human" / "desk.sqlite")
    made.publish(rank_task(criteria=("helpful",)), PAIRS)
    made.publish(review_task(), [review_item(0)])
    return made


def rows(store: Store) -> int:
    with sqlite3.connect(store.path) as database:
        return int(database.execute("SELECT count(*) FROM log").fetchone()[0])


def test_tasks_and_items_come_back_as_published(store: Store) -> None:
    again = Store(store.path)
    assert [task.id for task in again.tasks()] == ["rank-1", "review-1"]
    assert again.tasks()[0] == rank_task(criteria=("helpful",))
    assert again.items("rank-1") == PAIRS
    assert again.items("review-1") == [review_item(0)]


def test_publishing_the_same_again_changes_nothing(store: Store) -> None:
    store.judge(vote(PAIRS[0]))
    store.publish(rank_task(criteria=("helpful",)), PAIRS)
    assert len(store.tasks()) == 2
    assert len(store.judgements("rank-1")) == 1


@pytest.mark.parametrize("other", [(rank_task(criteria=("helpful",)), PAIRS[:5]), (rank_task(wanted=21), PAIRS)])
def test_other_content_under_a_known_id_is_refused(store: Store, other: Any) -> None:
    with pytest.raises(UsageError, match="rank-1 is there with other items or settings"):
        store.publish(*other)
    assert store.items("rank-1") == PAIRS


@pytest.mark.parametrize(
    ("task", "items"),
    [
        (rank_task(id="x"), [PAIRS[0], PAIRS[0]]),
        (rank_task(id="x"), [Item("a", [], PAIRS[0].candidates[:1])]),
        (rank_task(id="x"), [Item("a", [], tuple(Candidate.of(f"{n}", "m") for n in range(9)))]),
        (rank_task(id="x"), [review_item(0)]),
        (review_task(id="x"), [PAIRS[0]]),
    ],
)
def test_items_that_a_kind_cannot_have_are_a_callers_mistake(store: Store, task: Any, items: Any) -> None:
    with pytest.raises(ValueError, match="task x"):
        store.publish(task, items)
    assert len(store.tasks()) == 2


def test_a_judgement_comes_back_with_all_it_held(store: Store) -> None:
    ids = [one.id for one in PAIRS[0].candidates]
    said = vote(
        PAIRS[0],
        strength=5,
        criteria={"helpful": ids[1]},
        note='a "note"\nof two lines \ud800',
        is_repeat=True,
        at="2026-01-02T03:04:05+00:00",
    )
    store.judge(said)
    assert Store(store.path).judgements("rank-1") == [said]


def test_a_judgement_without_a_time_is_given_one(store: Store) -> None:
    store.judge(vote(PAIRS[0]))
    (found,) = store.judgements("rank-1")
    assert found.at.endswith("+00:00")


def test_a_second_judgement_of_a_showing_replaces_the_first_and_the_log_keeps_both(store: Store) -> None:
    store.judge(vote(PAIRS[0], best=0))
    store.judge(vote(PAIRS[0], best=0, is_repeat=True))
    store.judge(vote(PAIRS[0], "bob", best=0))
    store.judge(vote(PAIRS[0], best=1))
    standing = {(one.grader, one.is_repeat): one.ranks[PAIRS[0].candidates[0].id] for one in store.judgements("rank-1")}
    assert standing == {("ann", False): 2, ("ann", True): 1, ("bob", False): 1}
    assert rows(store) == 4


def test_undo_takes_back_the_newest_of_that_grader_one_by_one(store: Store) -> None:
    for item in PAIRS[:3]:
        store.judge(vote(item))
    store.judge(vote(PAIRS[5], "bob"))
    taken = [store.undo("rank-1", "ann") for _ in range(4)]
    assert [one.item if one else None for one in taken] == ["i2", "i1", "i0", None]
    assert [one.grader for one in store.judgements("rank-1")] == ["bob"]
    assert rows(store) == 7


def test_a_showing_can_be_judged_again_after_undo(store: Store) -> None:
    store.judge(vote(PAIRS[0], best=0))
    store.undo("rank-1", "ann")
    store.judge(vote(PAIRS[0], best=1))
    assert [one.ranks[PAIRS[0].candidates[1].id] for one in store.judgements("rank-1")] == [1]
    assert list(store.judged("rank-1", "ann")) == [("i0", False)]


def test_undo_of_a_replaced_judgement_leaves_the_showing_open(store: Store) -> None:
    store.judge(vote(PAIRS[0], best=0))
    store.judge(vote(PAIRS[0], best=1))
    store.undo("rank-1", "ann")
    assert store.judgements("rank-1") == []


def test_all_or_none_of_several_judgements_are_kept(store: Store) -> None:
    with pytest.raises(BadData):
        store.judge_all([vote(PAIRS[0]), vote(PAIRS[1], verdict="accept")])
    assert rows(store) == 0


@pytest.mark.parametrize("statement", ["DELETE FROM log", "UPDATE log SET grader = 'eve'", "UPDATE items SET id = 'x'"])
def test_the_file_itself_refuses_changes(store: Store, statement: str) -> None:
    store.judge(vote(PAIRS[0]))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), sqlite3.connect(store.path) as database:
        database.execute(statement)


def _changed(**changes: Any) -> Judgement:
    return vote(PAIRS[0], **changes)


A, B = (one.id for one in PAIRS[0].candidates)


@pytest.mark.parametrize(
    ("judgement", "message"),
    [
        (_changed(task="nope"), "no task nope"),
        (_changed(item="nope"), "no item nope in task rank-1"),
        (_changed(verdict="accept"), "a rank task takes ranked, both_bad, skip"),
        (_changed(grader=""), "grader ''"),
        (_changed(grader=" ann"), "grader ' ann'"),
        (_changed(grader="a" * 65), "1 to 64"),
        (_changed(grader="=1+1"), "grader '=1"),
        (_changed(seconds=-1.0), "seconds"),
        (_changed(seconds=float("nan")), "seconds"),
        (_changed(strength=0), "1 to 7"),
        (_changed(strength=8), "1 to 7"),
        (_changed(note="x" * 2001), "2000"),
        (_changed(reason="x" * 2001), "2000"),
        (_changed(criteria={"style": A}), "no such criterion: style"),
        (_changed(criteria={"helpful": "x"}), "id of an answer"),
        (_changed(edited={"id": "a"}), "edited row"),
        (_changed(order=(A,)), "order"),
        (_changed(order=(A, A)), "order"),
        (_changed(order=(A, B, A)), "order"),
        (_changed(ranks={A: 1}), "ranks"),
        (_changed(ranks={A: 1, B: 2, "x": 3}), "ranks"),
        (_changed(ranks={A: 2, B: 2}), "from 1"),
        (_changed(ranks={A: 1, B: 3}), "at most 2"),
        (_changed(ranks={A: 0, B: 1}), "from 1"),
        (_changed(verdict="skip"), "do not go with the verdict skip"),
        (vote(PAIRS[0], task="review-1", item="r0", verdict="both_bad"), "a review task takes accept"),
        (Judgement(task="review-1", item="r0", grader="ann", verdict="edit"), "edited row"),
    ],
)
def test_a_judgement_that_cannot_be_is_refused(store: Store, judgement: Judgement, message: str) -> None:
    with pytest.raises(FtcliError, match=message):
        store.judge(judgement)
    assert rows(store) == 0


def test_answers_that_are_all_the_same_are_not_asked_about(tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite")
    item = Item("a", [], (Candidate.of("Yes.", "one"), Candidate.of("Yes.\n", "two")))
    assert item.candidates[0].id == item.candidates[1].id == candidate_id("Yes.")
    store.publish(rank_task(), [item])
    with pytest.raises(BadData, match="a tie without being asked"):
        store.judge(vote(item))


def test_a_review_takes_accept_edit_reject_and_skip(store: Store) -> None:
    row = {**(review_item(0).row or {}), "messages": []}
    for grader, verdict in zip(("a", "b", "c", "d"), ("accept", "edit", "reject", "skip"), strict=True):
        edited = row if verdict == "edit" else None
        store.judge(Judgement(task="review-1", item="r0", grader=grader, verdict=verdict, edited=edited))  # type: ignore[arg-type]
    found = store.judgements("review-1")
    assert [one.verdict for one in found] == ["accept", "edit", "reject", "skip"]
    assert found[1].edited == row
    assert [one.counts for one in found] == [True, True, True, False]


# ---- crashes, processes, versions

VOTER = """
import sys
from pathlib import Path
from ftcli.human.store import Store
from tests.human.conftest import pair, vote
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
number = 0
while True:
    store.judge(vote(pair(number % 6), f"{sys.argv[2]}{number}"))
    print(number, flush=True)  # acknowledged
    number += 1
    if number == int(sys.argv[3]):
        break
"""


def voter(store: Store, grader: str, count: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(VOTER), str(store.path), grader, str(count)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_killing_a_voter_loses_nothing_that_was_acknowledged(store: Store) -> None:
    with voter(store, "ann") as process:
        start(process)
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(40)]
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.read().split()
    acknowledged = [int(one) for one in seen if one.isdigit()]
    found = [int(one.grader.removeprefix("ann")) for one in Store(store.path).judgements("rank-1")]
    assert len(acknowledged) >= 39
    assert found in (acknowledged, [*acknowledged, len(acknowledged)])  # one may be on disk and not yet said
    with sqlite3.connect(store.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_processes_vote_on_one_file_and_none_is_lost_or_doubled(store: Store) -> None:
    with voter(store, "ann", 60) as one, voter(store, "bob", 60) as other:
        for process in (one, other):
            start(process)
        assert [one.wait(60), other.wait(60)] == [0, 0]
    found = [one.grader for one in store.judgements("rank-1")]
    assert sorted(found) == sorted(f"{name}{number}" for name in ("ann", "bob") for number in range(60))
    assert rows(store) == 120


def test_processes_that_make_the_file_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "human" / "desk.sqlite"
    code = f"from pathlib import Path; from ftcli.human.store import Store; Store(Path({str(path)!r})).tasks()"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) for _ in range(6)]
    assert [process.wait(60) for process in processes] == [0] * 6


def test_a_file_of_an_older_version_is_brought_up_to_date_with_its_votes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.judge(vote(PAIRS[0]))
    store.close()
    added = ("ALTER TABLE log ADD COLUMN client TEXT",)
    monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, added))
    newer = Store(store.path)
    newer.judge(vote(PAIRS[1]))
    assert [one.item for one in newer.judgements("rank-1")] == ["i0", "i1"]
    assert Store(store.path).tasks()  # once is enough: the column is there
    with sqlite3.connect(store.path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.judge(vote(PAIRS[0]))
    broken = ("ALTER TABLE log ADD COLUMN client TEXT", "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, broken))
        with pytest.raises(DiskError, match="nowhere"):
            Store(store.path)
    with sqlite3.connect(store.path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert "client" not in [row[1] for row in database.execute("PRAGMA table_info(log)")]
    assert len(Store(store.path).judgements("rank-1")) == 1


def test_a_file_of_a_newer_version_is_refused(store: Store) -> None:
    with sqlite3.connect(store.path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="version 99, this ftcli knows 1"):
        Store(store.path)


def test_a_file_that_is_no_database_is_called_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "desk.sqlite"
    path.write_text("not a database, and long enough to be looked at " * 20)
    with pytest.raises(Corrupt, match="not a database"):
        Store(path)


def test_every_commit_is_flushed_to_disk(store: Store) -> None:
    pragma = store._database.execute
    assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
    assert pragma("PRAGMA synchronous").fetchone() == (2,)  # FULL: https://sqlite.org/pragma.html#pragma_synchronous
