"""The stage in a run directory: the controller, the desk that people see, and the controller again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import GateFailed, NeedsHuman
from ftcli.core.rundir import Published, RunDir
from ftcli.core.stage import Kind
from ftcli.data.rows import read_jsonl
from ftcli.human.desk import Desk
from ftcli.human.store import Store
from ftcli.launch.inline import run_inline
from ftcli.pipeline.runner import Task, execute
from ftcli.stages.review.stage import REVIEW
from tests.conftest import artifact
from tests.stages.review.reviewing import data_folder, judge, row, vote


def run_it(run: RunDir, data: Path, said: list[str], **settings: Any) -> Published:
    config = REVIEW.config.model_validate(settings)
    task = Task("review", "ftcli.stages.review.stage:REVIEW", REVIEW, config, {"data": (artifact(Kind.DATA, data),)})
    return execute(task, run, run_inline, lambda event: None, said.append)


def test_what_people_do_on_the_desk_becomes_data(tmp_path: Path) -> None:
    run, said = RunDir(tmp_path / "run"), list[str]()
    data = data_folder(tmp_path / "data", [row(0), row(1), row(2)])
    with pytest.raises(NeedsHuman, match="0 of 3 rows judged"):
        run_it(run, data, said)

    store = Store(run.desk)
    desk = Desk(store, ["ann"])
    while (view := desk.view("ann", 0))["showing"] is not None:
        texts = [part["text"] for part in view["parts"] if part["editable"]]
        vote: dict[str, Any] = {"task": 0, "showing": view["showing"], "seconds": 3.0, "verdict": "accept"}
        if "What is 1 + 1?" in texts:
            vote |= {"verdict": "edit", "texts": [texts[0], "Two."]}
        elif "What is 2 + 1?" in texts:
            vote |= {"verdict": "reject", "reason": "wrong", "note": "asks too little"}
        desk.vote("ann", vote)
    store.close()

    item = run_it(run, data, said)
    assert said == ["review: run (first time)", "review: run (waited for people: looks again)"]
    first, second = read_jsonl(item.output("data") / "train.jsonl")
    assert first["meta"]["prov"]["review"]["decision"] == "accept"
    assert second["messages"] == [row(1)["messages"][0], {"role": "assistant", "content": "Two."}]
    assert second["meta"]["prov"]["review"]["reviewers"] == ["ann"]
    (rejected,) = read_jsonl(item.output("report") / "rejected.jsonl")
    assert (rejected["id"], rejected["reason"], rejected["judgements"][0]["note"]) == ("r2", "wrong", "asks too little")
    assert run_it(run, data, said).path == item.path
    assert said[-1] == "review: cached"


def test_a_failed_gate_publishes_nothing_and_a_change_of_mind_is_heard(tmp_path: Path) -> None:
    run, said = RunDir(tmp_path / "run"), list[str]()
    data = data_folder(tmp_path / "data", [row(0), row(1)])
    with pytest.raises(NeedsHuman):
        run_it(run, data, said, min_accept_rate=0.9)
    judge(run.desk, vote("r0", "accept"), vote("r1", "reject", reason="wrong"))
    with pytest.raises(GateFailed, match="1 of 2 accepted"):
        run_it(run, data, said, min_accept_rate=0.9)
    assert run.latest("review") is None
    judge(run.desk, vote("r1", "accept"))
    assert run_it(run, data, said, min_accept_rate=0.9) == run.latest("review")
