"""What the tests of the review stage share: rows as synth makes them, votes, and a way to run the stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftcli.core.events import Event
from ftcli.core.stage import Context, Kind
from ftcli.data.rows import Row, read_jsonl, write_jsonl
from ftcli.human.store import Judgement, Store
from ftcli.stages.review.stage import REVIEW
from tests.conftest import artifact, run_stage

TEACHER = {"name": "org/teacher", "revision": "abc", "license": "apache-2.0"}


def row(number: int) -> Row:
    return {
        "id": f"r{number}",
        "messages": [
            {"role": "user", "content": f"What is {number} + 1?"},
            {"role": "assistant", "content": f"It is {number + 1}."},
        ],
        "meta": {"prov": {"origin": "synthetic", "teacher": TEACHER}},
    }


def with_answer(source: Row, text: str) -> Row:
    return {**source, "messages": [source["messages"][0], {"role": "assistant", "content": text}]}


def data_folder(folder: Path, train: Sequence[Row], validation: Sequence[Row] = (), test: Sequence[Row] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("validation", validation), ("test", test)):
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def vote(item: str, verdict: str, grader: str = "ann", **more: Any) -> dict[str, Any]:
    return {"item": item, "verdict": verdict, "grader": grader, **more}


def votes_file(folder: Path, votes: Sequence[dict[str, Any]]) -> Path:
    path = folder / "votes.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in votes), encoding="utf-8")
    return path


def review(folder: Path, data: Path, **more: Any) -> tuple[Context[Any], list[str]]:
    """Run the stage in ``folder``; return its context and the notes it gave. ``votes`` is a file."""
    events: list[Event] = []
    inputs = {"data": artifact(Kind.DATA, data, ref="synth.data", label="synth")}
    votes = more.pop("votes", None)
    if votes is not None:
        inputs["votes"] = artifact(Kind.SOURCE, votes)
    context = run_stage(REVIEW, folder, inputs, sink=events.append, **more)
    return context, [event["text"] for event in events if event["event"] == "note"]


def rows_out(context: Context[Any], split: str = "train") -> list[Row]:
    return list(read_jsonl(context.out / "data" / f"{split}.jsonl"))


def judge(desk: Path, *votes: dict[str, Any], task: str | None = None) -> None:
    """Say ``votes`` in the newest task on the desk, or in ``task``."""
    store = Store(desk)
    task = task or store.tasks()[-1].id
    for one in votes:
        store.judge(Judgement(**{"task": task, "seconds": 4.0, **one}))
    store.close()
