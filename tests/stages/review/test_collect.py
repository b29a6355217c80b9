from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, GateFailed, NeedsHuman, UsageError
from ftcli.data.rows import Row, read_jsonl, read_split, write_jsonl, write_rows
from ftcli.data.rows import RowType as Type
from ftcli.human.store import Store
from tests.stages.review.reviewing import (
    data_folder,
    judge,
    review,
    row,
    rows_out,
    vote,
    votes_file,
    with_answer,
)

ROWS = [row(number) for number in range(10)]
MIXED = [
    *(vote(f"r{number}", "accept") for number in range(6)),
    vote("r6", "edit", edited=with_answer(row(6), "6 + 1 = 7")),
    vote("r7", "reject", reason="wrong"),
    vote("r8", "reject", reason="unsafe", note="names a person"),
    vote("r9", "reject", reason="wrong"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return data_folder(tmp_path / "data", ROWS[:7], ROWS[7:9], ROWS[9:])


def desk_of(folder: Path) -> Path:
    return folder / "human" / "desk.sqlite"


def decision(one: Row) -> str:
    return str(one["meta"]["prov"]["review"]["decision"])


# ---- a votes file


def test_every_row_goes_on_or_is_rejected_with_its_reason(data: Path, tmp_path: Path) -> None:
    context, notes = review(tmp_path, data, votes=votes_file(tmp_path, MIXED))
    assert [one["id"] for one in rows_out(context)] == ["r0", "r1", "r2", "r3", "r4", "r5", "r6"]
    assert rows_out(context, "validation") == rows_out(context, "test") == []
    assert [decision(one) for one in rows_out(context)] == ["accept"] * 6 + ["edit"]
    edited = rows_out(context)[-1]
    assert edited["messages"][-1]["content"] == "6 + 1 = 7"
    assert edited["meta"]["prov"]["origin"] == "edited"
    rejected = list(read_jsonl(context.out / "report" / "rejected.jsonl"))
    assert [(one["id"], one["split"], one["reason"]) for one in rejected] == [
        ("r7", "validation", "wrong"),
        ("r8", "validation", "unsafe"),
        ("r9", "test", "wrong"),
    ]
    assert rejected[1]["judgements"][0]["note"] == "names a person"
    assert rejected[1]["row"] == row(8)
    assert notes[0] == (
        "review: 10 rows in: 6 accepted, 1 edited, 3 rejected (wrong 2, unsafe 1), 0 not looked at; 7 rows out"
    )
    facts = context.events.summary
    assert (facts["review/rows_in"], facts["review/rows_out"], facts["review/rejected"]) == (10, 7, 3)


def test_the_kept_rows_are_data_that_other_stages_read(data: Path, tmp_path: Path) -> None:
    context, _ = review(tmp_path, data, votes=votes_file(tmp_path, MIXED))
    for split, count in (("train", 7), ("validation", 0), ("test", 0)):
        assert len(read_split(context.out / "data", split, Type.MESSAGES)) == count


def test_the_original_of_an_edited_row_is_kept(data: Path, tmp_path: Path) -> None:
    context, _ = review(tmp_path, data, votes=votes_file(tmp_path, MIXED))
    (edited,) = read_jsonl(context.out / "report" / "edited.jsonl")
    assert (edited["before"], edited["after"]) == (row(6), with_answer(row(6), "6 + 1 = 7"))


def test_too_few_votes_ask_for_people_and_say_how_many(data: Path, tmp_path: Path) -> None:
    votes = votes_file(tmp_path, [*MIXED[:3], vote("r3", "skip")])
    with pytest.raises(NeedsHuman) as caught:
        review(tmp_path, data, votes=votes)
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith("review: 3 of 10 rows judged; 3 of 3 accepted as they are (100.0%")
    assert caught.value.message.endswith("1 of the others skipped: somebody else has to judge them")
    assert caught.value.hint == "give more judgements as the input votes"


def test_votes_on_rows_that_are_not_under_review_are_said(data: Path, tmp_path: Path) -> None:
    _, notes = review(tmp_path, data, votes=votes_file(tmp_path, [*MIXED, vote("r77", "accept")]))
    assert notes[0] == "review: 1 of the votes are of rows that are not to be judged; they count nowhere"


def test_all_rows_rejected_is_a_failed_gate(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data", ROWS[:2])
    votes = votes_file(tmp_path, [vote("r0", "reject", reason="wrong"), vote("r1", "reject")])
    with pytest.raises(GateFailed) as caught:
        review(tmp_path, data, votes=votes)
    assert "no row is left; rejected: wrong 1, no reason given 1" in caught.value.message
    assert (tmp_path / "scratch" / "report" / "rejected.jsonl").exists()


# ---- the desk


def test_the_desk_is_asked_and_the_same_command_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = desk_of(tmp_path / "run")
    settings: dict[str, Any] = {"desk": desk, "guidelines": "Is the sum right?"}
    with pytest.raises(NeedsHuman) as caught:
        review(tmp_path, data, **settings)
    assert caught.value.message == "review: 0 of 10 rows judged"
    assert caught.value.hint == "ftcli serve --run run, then the same command again"
    store = Store(desk)
    (task,) = store.tasks()
    assert (task.kind, task.overlap, task.wanted) == ("review", 1, 10)
    assert task.guidelines.startswith("Is the sum right?\n\nWhoever rejects a row says why: wrong, incomplete,")
    assert [(item.id, item.row, item.split) for item in store.items(task.id)][7] == ("r7", row(7), "validation")
    store.close()

    judge(desk, *MIXED[:4])
    with pytest.raises(NeedsHuman, match="review: 4 of 10 rows judged; 4 of 4 accepted"):
        review(tmp_path, data, **settings)
    judge(desk, *MIXED[4:])
    context, _ = review(tmp_path, data, **settings)
    assert len(rows_out(context)) == 7
    assert rows_out(context)[0]["meta"]["prov"]["review"]["at"] > "2026"
    store = Store(desk)
    assert len(store.tasks()) == 1
    store.close()


def test_a_judgement_that_was_taken_back_does_not_count(tmp_path: Path) -> None:
    data, desk = data_folder(tmp_path / "data", ROWS[:2]), desk_of(tmp_path)
    with pytest.raises(NeedsHuman):
        review(tmp_path, data, desk=desk)
    judge(desk, vote("r0", "accept"), vote("r1", "accept"))
    store = Store(desk)
    store.undo(store.tasks()[0].id, "ann")
    store.close()
    with pytest.raises(NeedsHuman, match="1 of 2 rows judged"):
        review(tmp_path, data, desk=desk)


def test_the_desk_is_asked_for_what_the_votes_leave_open(data: Path, tmp_path: Path) -> None:
    desk, votes = desk_of(tmp_path), votes_file(tmp_path, MIXED[:8])
    with pytest.raises(NeedsHuman, match="8 of 10 rows judged"):
        review(tmp_path, data, votes=votes, desk=desk)
    store = Store(desk)
    assert [item.id for item in store.items(store.tasks()[0].id)] == ["r8", "r9"]
    store.close()
    judge(desk, *MIXED[8:])
    context, _ = review(tmp_path, data, votes=votes, desk=desk)
    assert len(rows_out(context)) == 7


def test_votes_that_suffice_need_no_desk(data: Path, tmp_path: Path) -> None:
    review(tmp_path, data, votes=votes_file(tmp_path, MIXED), desk=desk_of(tmp_path))
    assert not desk_of(tmp_path).exists()


def test_a_changed_row_is_a_new_question(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    with pytest.raises(NeedsHuman):
        review(tmp_path, data_folder(tmp_path / "data", ROWS[:1]), desk=desk)
    judge(desk, vote("r0", "accept"))
    with pytest.raises(NeedsHuman, match="0 of 1 rows judged"):
        review(tmp_path, data_folder(tmp_path / "data", [with_answer(row(0), "Two.")]), desk=desk)


def test_what_was_said_of_a_row_counts_in_a_larger_sample_too_and_nobody_is_asked_twice(tmp_path: Path) -> None:
    data, desk = data_folder(tmp_path / "data", ROWS), desk_of(tmp_path)
    settings: dict[str, Any] = {"mode": "sample", "min_accept_rate": 0.1, "desk": desk}
    with pytest.raises(NeedsHuman):
        review(tmp_path, data, sample_size=2, **settings)
    store = Store(desk)
    small = store.tasks()[0].id
    ids = [item.id for item in store.items(small)]
    store.close()
    judge(desk, vote(ids[0], "accept"))
    with pytest.raises(NeedsHuman, match="1 of 4 rows judged"):
        review(tmp_path, data, sample_size=4, **settings)
    store = Store(desk)
    large = store.tasks()[-1].id
    assert list(store.judged(large, "ann")) == [(ids[0], False)]
    store.close()
    judge(desk, vote(ids[1], "accept"), task=small)
    with pytest.raises(NeedsHuman, match="2 of 4 rows judged"):
        review(tmp_path, data, sample_size=4, **settings)
    with pytest.raises(NeedsHuman, match="0 of 4 rows judged"):
        review(tmp_path, data, sample_size=4, guidelines="Be stricter.", **settings)


def test_a_change_of_mind_on_the_desk_stands(tmp_path: Path) -> None:
    data, desk = data_folder(tmp_path / "data", ROWS[:2]), desk_of(tmp_path)
    with pytest.raises(NeedsHuman):
        review(tmp_path, data, desk=desk)
    judge(desk, vote("r0", "accept"), vote("r1", "accept"), vote("r1", "reject", reason="Wrong: not so"))
    context, notes = review(tmp_path, data, desk=desk)
    assert [one["id"] for one in rows_out(context)] == ["r0"]
    assert "1 rejected (wrong 1)" in notes[0]


def test_an_edit_from_the_desk_that_is_no_row_names_row_and_reviewer(tmp_path: Path) -> None:
    data, desk = data_folder(tmp_path / "data", ROWS[:1]), desk_of(tmp_path)
    with pytest.raises(NeedsHuman):
        review(tmp_path, data, desk=desk)
    judge(desk, vote("r0", "edit", edited=with_answer(row(0), "")))
    with pytest.raises(BadData, match="row r0, judged by ann: the edited row: an answer is empty") as caught:
        review(tmp_path, data, desk=desk)
    assert caught.value.hint.startswith("judge it again: ftcli serve")


# ---- several reviewers


def test_each_row_needs_as_many_people_as_overlap_says(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data", ROWS[:4])
    ann = [vote(f"r{number}", verdict) for number, verdict in enumerate(["accept", "accept", "reject", "reject"])]
    with pytest.raises(NeedsHuman, match="0 of 4 rows judged by 2 people each"):
        review(tmp_path, data, votes=votes_file(tmp_path, ann), overlap=2)
    bob = [
        vote(f"r{number}", verdict, "bob") for number, verdict in enumerate(["accept", "reject", "reject", "reject"])
    ]
    context, _ = review(tmp_path, data, votes=votes_file(tmp_path, [*ann, *bob]), overlap=2)
    assert [one["id"] for one in rows_out(context)] == ["r0"]
    assert rows_out(context)[0]["meta"]["prov"]["review"]["reviewers"] == ["ann", "bob"]
    figures = json.loads((context.out / "report" / "figures.json").read_text())
    assert figures["reasons"] == {"no reason given": 2, "reviewers disagree": 1}
    assert figures["ties"] == 1
    (pair,) = figures["agreement"]["pairs"]
    assert (pair["first"], pair["second"], pair["units"], pair["raw"]) == ("ann", "bob", 4, 0.75)
    # both say accept by chance 1/2 x 1/4, reject 1/2 x 3/4: chance 1/2, so (3/4 - 1/2) / (1 - 1/2)
    assert pair["kappa"] == pytest.approx(0.5)


# ---- a sample


SAMPLE: dict[str, Any] = {"mode": "sample", "sample_size": 10, "min_accept_rate": 0.49}


def sampled(tmp_path: Path, data: Path, **settings: Any) -> list[str]:
    """The ids that the desk is asked for."""
    desk = desk_of(tmp_path)
    desk.unlink(missing_ok=True)
    with pytest.raises(NeedsHuman):
        review(tmp_path, data, desk=desk, **settings)
    store = Store(desk)
    found = [item.id for item in store.items(store.tasks()[-1].id)]
    store.close()
    return found


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return data_folder(tmp_path / "many", [row(number) for number in range(40)])


def test_a_sample_is_drawn_by_the_seed_and_a_larger_one_contains_it(many: Path, tmp_path: Path) -> None:
    small, large = sampled(tmp_path, many, **SAMPLE), sampled(tmp_path, many, **{**SAMPLE, "sample_size": 20})
    other = sampled(tmp_path, many, **SAMPLE, seed=1)
    assert (len(small), len(large)) == (10, 20)
    assert set(small) < set(large)
    assert set(small) != set(other)


def test_the_rows_outside_the_sample_go_on_unreviewed_if_the_gate_is_passed(many: Path, tmp_path: Path) -> None:
    ids = sampled(tmp_path, many, **SAMPLE)
    votes = [*(vote(id, "accept") for id in ids[:8]), *(vote(id, "reject", reason="wrong") for id in ids[8:])]
    context, notes = review(tmp_path, many, votes=votes_file(tmp_path, votes), **SAMPLE)
    found = {one["id"]: decision(one) for one in rows_out(context)}
    assert len(found) == 38
    assert {id for id, said in found.items() if said == "accept"} == set(ids[:8])
    assert sum(said == "unreviewed" for said in found.values()) == 30
    assert "8 accepted, 0 edited, 2 rejected (wrong 2), 30 not looked at; 38 rows out" in notes[0]


def test_the_lower_end_of_wilsons_interval_must_reach_the_limit(many: Path, tmp_path: Path) -> None:
    ids = sampled(tmp_path, many, **SAMPLE)
    votes = [*(vote(id, "accept") for id in ids[:8]), *(vote(id, "reject", reason="wrong") for id in ids[8:])]
    with pytest.raises(GateFailed) as caught:
        review(tmp_path, many, votes=votes_file(tmp_path, votes), **{**SAMPLE, "min_accept_rate": 0.4905})
    # (0.8 + z2/20 -+ z sqrt(0.016 + z2/400)) / (1 + z2/10) with z2 = 3.8415: 0.4902 to 0.9433
    assert "8 of 10 accepted as they are (80.0%, 95% interval 49.0% to 94.3%)" in caught.value.message
    assert caught.value.message.endswith("the lower end must reach min_accept_rate 49.0%; rejected: wrong 2")
    assert caught.value.exit_code == 6
    assert not (tmp_path / "out" / "data").exists()
    page = tmp_path / "scratch" / "report" / "report.html"
    assert str(page) in caught.value.hint
    assert page.exists()


def test_edited_rows_do_not_speak_for_the_rows_that_nobody_sees(many: Path, tmp_path: Path) -> None:
    ids = sampled(tmp_path, many, **SAMPLE)
    votes = [vote(id, "edit", edited=with_answer(row(int(id[1:])), "Corrected.")) for id in ids]
    with pytest.raises(GateFailed, match="0 of 10 accepted as they are"):
        review(tmp_path, many, votes=votes_file(tmp_path, votes), **SAMPLE)


@pytest.mark.parametrize("settings", [{"mode": "all"}, {"mode": "sample", "sample_size": 50}])
def test_where_every_row_is_judged_the_share_itself_is_held_against_the_limit(
    data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    votes = votes_file(tmp_path, MIXED)
    review(tmp_path / "passes", data, votes=votes, min_accept_rate=0.6, **settings)
    with pytest.raises(GateFailed, match=r"6 of 10 .*; must reach min_accept_rate 61\.0%"):
        review(tmp_path / "fails", data, votes=votes, min_accept_rate=0.61, **settings)


# ---- nobody


def test_mode_none_says_aloud_that_nobody_looked(data: Path, tmp_path: Path) -> None:
    context, notes = review(tmp_path, data, desk=desk_of(tmp_path), mode="none")
    assert notes == ["review: nobody looked at these 10 rows (mode none); every row says so"]
    everything = [one for split in ("train", "validation", "test") for one in rows_out(context, split)]
    assert [decision(one) for one in everything] == ["unreviewed"] * 10
    assert "Nobody looked at these 10 rows" in (context.out / "report" / "summary.txt").read_text()
    assert not desk_of(tmp_path).exists()


def test_mode_none_refuses_votes_that_it_would_not_read(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mode none reads no votes"):
        review(tmp_path, data, votes=votes_file(tmp_path, MIXED), mode="none")


# ---- the rows


PROMPT = [{"role": "user", "content": "Hi"}]
ANSWER, OTHER = [{"role": "assistant", "content": "Hello!"}], [{"role": "assistant", "content": "Go."}]
OF_EACH_TYPE: list[Row] = [
    row(1),
    {"id": "a", "prompt": PROMPT, "meta": {}},
    {"id": "a", "prompt": PROMPT, "chosen": ANSWER, "rejected": OTHER, "meta": {}},
    {"id": "a", "prompt": PROMPT, "candidates": [{"content": "x", "rank": 1}, {"content": "y", "rank": 2}]},
    {"id": "a", "prompt": PROMPT, "completion": ANSWER, "label": True, "meta": None},
    {"id": "a", "text": "Once upon a time."},
]


@pytest.mark.parametrize("one", OF_EACH_TYPE, ids=list(map(str, range(6))))
@pytest.mark.parametrize("verdict", ["accept", "none"])
def test_rows_of_every_type_go_through(tmp_path: Path, one: Row, verdict: str) -> None:
    data = data_folder(tmp_path / "data", [one])
    if verdict == "none":
        context, _ = review(tmp_path, data, mode="none")
    else:
        desk = desk_of(tmp_path)
        with pytest.raises(NeedsHuman):
            review(tmp_path, data, desk=desk)
        judge(desk, vote(one["id"], verdict))
        context, _ = review(tmp_path, data, desk=desk)
    (found,) = rows_out(context)
    assert {name: value for name, value in found.items() if name != "meta"} == {
        name: value for name, value in one.items() if name != "meta"
    }


def test_parquet_stays_parquet(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, rows in (("train", ROWS[:2]), ("validation", []), ("test", [])):
        write_rows(data / f"{split}.parquet", rows, "parquet", Type.MESSAGES)
    context, _ = review(tmp_path, data, votes=votes_file(tmp_path, [vote("r0", "accept"), vote("r1", "reject")]))
    (found,) = read_split(context.out / "data", "train", Type.MESSAGES)
    assert found["messages"] == row(0)["messages"]
    assert decision(found) == "accept"
    assert not list((context.out / "data").glob("*.jsonl"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(0), row(0)], r"train\.jsonl:2: id 'r0', as at .*train\.jsonl:1"),
        ([row(0), {"id": "x", "text": "y"}], r"train\.jsonl:2: a text row among messages rows"),
        ([{**row(0), "meta": [1]}], r"train\.jsonl:1: meta and meta\.prov must be objects"),
        ([{**row(0), "meta": {"prov": "me"}}], r"train\.jsonl:1: meta and meta\.prov must be objects"),
        ([{**row(0), "meta": {"loss": float("nan")}}], r"train\.jsonl:1: cannot be written as JSON"),
        ([{"question": "?"}], r"train\.jsonl:1: no known row type"),
        ([], "no rows to review"),
    ],
)
def test_rows_that_a_review_cannot_name_or_mark_are_refused(tmp_path: Path, rows: list[Row], said: str) -> None:
    with pytest.raises(BadData, match=said):
        review(tmp_path, data_folder(tmp_path / "data", rows), mode="none")


def test_one_type_is_needed_over_all_splits(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data", [row(0)], [{"id": "x", "text": "y"}])
    with pytest.raises(BadData, match=r"validation\.jsonl:1: a text row, messages needed"):
        review(tmp_path, data, mode="none")


def test_a_non_commercial_licence_is_said(tmp_path: Path) -> None:
    bound: Row = {**row(0), "meta": {"prov": {"source_license": "CC-BY-NC-4.0"}}}
    write_jsonl(data_folder(tmp_path / "data", []) / "train.jsonl", [bound, row(1)])
    _, notes = review(tmp_path, tmp_path / "data", mode="none")
    assert notes[-1] == "review: 1 of the rows in are under a licence that calls itself non-commercial"
