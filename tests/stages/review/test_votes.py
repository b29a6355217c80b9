from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, UsageError
from ftcli.data.rows import Row
from ftcli.human.tasks import Item, Judgement, Task
from ftcli.stages.review.votes import read_votes
from tests.stages.review.reviewing import row, vote, votes_file, with_answer

TASK = Task(id="t", kind="review", title="", wanted=2)
PAIR: Row = {
    "id": "p1",
    "prompt": [{"role": "user", "content": "Hi"}],
    "chosen": [{"role": "assistant", "content": "Hello!"}],
    "rejected": [{"role": "assistant", "content": "What?"}],
}
ITEMS = {one["id"]: Item(one["id"], [], row=one) for one in (row(1), row(2), PAIR)}
BETTER = with_answer(row(1), "1 + 1 = 2")


def read(folder: Path, *votes: dict[str, Any]) -> tuple[list[Judgement], int]:
    return read_votes(votes_file(folder, votes), TASK, ITEMS)


def test_a_line_needs_item_grader_and_verdict_only(tmp_path: Path) -> None:
    found, others = read(tmp_path, vote("r1", "accept"), vote("r2", "reject", "bob", reason="wrong", note="it is 3"))
    assert [(one.item, one.grader, one.verdict, one.reason) for one in found] == [
        ("r1", "ann", "accept", ""),
        ("r2", "bob", "reject", "wrong"),
    ]
    assert others == 0


def test_an_edited_row_keeps_id_and_meta_and_no_change_is_an_accept(tmp_path: Path) -> None:
    forged = {**BETTER, "meta": {"prov": {"origin": "human"}}}
    bare = {"messages": BETTER["messages"]}
    found, _ = read(
        tmp_path, vote("r1", "edit", edited=forged), vote("r1", "edit", edited=bare), vote("r2", "edit", edited=row(2))
    )
    assert [one.edited for one in found] == [BETTER, BETTER, None]
    assert [one.verdict for one in found] == ["edit", "edit", "accept"]


def test_votes_on_other_rows_are_counted(tmp_path: Path) -> None:
    found, others = read(tmp_path, vote("r1", "accept"), vote("elsewhere", "accept"))
    assert (len(found), others) == (1, 1)


def test_blank_lines_and_a_byte_order_mark_are_no_votes(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(vote("r1", "accept")).encode() + b"\r\n\r\n")
    assert len(read_votes(path, TASK, ITEMS)[0]) == 1


EMPTY = with_answer(row(1), " ")
ODD_ROLE = {**row(1), "messages": [*row(1)["messages"], {"role": "user", "content": "And 2?"}]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"item": "r1", "grader": "ann"}, "no verdict"),
        ({"item": "r1", "verdict": "accept"}, "no grader"),
        (vote("r1", "accept", verdikt="x"), "unknown key verdikt"),
        (vote("r1", "maybe"), "verdict 'maybe'"),
        (vote("r1", "ranked"), "verdict 'ranked': a review task takes accept, edit, reject, skip"),
        (vote("r1", "accept", ""), "grader ''"),
        (vote("r1", "accept", note=3), "note: a text is needed"),
        (vote("r1", "edit"), "an edited row goes with the verdict edit"),
        (vote("r1", "accept", edited=BETTER), "an edited row goes with the verdict edit"),
        (vote("r1", "edit", edited={"text": "2"}), "the edited row: a text row, messages needed"),
        (vote("r1", "edit", edited={"answer": "2"}), "the edited row: no known row type, messages needed"),
        (vote("r1", "edit", edited=ODD_ROLE), "the edited row: the last message of messages is not the assistant's"),
        (vote("r1", "edit", edited=EMPTY), "the edited row: an answer is empty"),
        (vote("r1", "edit", edited={**BETTER, "id": "r9"}), "the edited row has the id 'r9', its item 'r1'"),
        (vote("r1", "edit", edited={**BETTER, "score": 1}), "the edited row: unknown key score"),
        (vote("r1", "edit", edited=with_answer(row(1), "\ud800")), "the edited row: 'utf-8' codec can't encode"),
        (vote("p1", "edit", edited={**PAIR, "rejected": PAIR["chosen"]}), "chosen and rejected are the same"),
        ([1], "no JSON object"),
    ],
)
def test_a_line_that_cannot_count_is_refused_with_its_place(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(BadData) as caught:
        read(tmp_path, vote("r2", "accept"), line)
    assert caught.value.message.startswith(f"{tmp_path / 'votes.jsonl'}:2: ")
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("content", [b'{"item": "r1",\n', b"\xff\xfe\n", b"NaN-\n"])
def test_a_line_that_is_no_json_is_refused_with_its_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"votes\.jsonl:1: no JSON"):
        read_votes(path, TASK, ITEMS)


def test_a_file_without_a_vote_on_these_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="none of its 1 judgements is of a row that is to be judged"):
        read(tmp_path, vote("elsewhere", "accept"))
    with pytest.raises(BadData, match="none of its 0 judgements"):
        read(tmp_path)


def test_a_folder_is_no_votes_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no votes file"):
        read_votes(tmp_path, TASK, ITEMS)
