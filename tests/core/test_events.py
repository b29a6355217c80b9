from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.events import Events


def steps(events: Events) -> list[int]:
    return [json.loads(line)["step"] for line in events.path.read_text().splitlines()]


def test_metrics_are_kept_and_everything_is_told(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    events = Events(tmp_path, told.append)
    events.metrics(1, {"train/loss": 1.5, "perf/tokens_per_s": None})
    events.progress("train", 1, 10, loss=1.5)
    events.note("bf16, since the processor has it")
    assert events.path.read_text() == '{"step": 1, "train/loss": 1.5, "perf/tokens_per_s": null}\n'
    assert told == [
        {"event": "metrics", "step": 1, "train/loss": 1.5, "perf/tokens_per_s": None},
        {"event": "progress", "task": "train", "done": 1, "total": 10, "shown": {"loss": 1.5}},
        {"event": "note", "text": "bf16, since the processor has it"},
    ]


def test_rewind_drops_later_steps(tmp_path: Path) -> None:
    events = Events(tmp_path)
    for step in (1, 2, 2, 3):
        events.metrics(step, {"x/y": step})
    events.rewind(2)
    assert steps(events) == [1, 2, 2]
    events.rewind(0)
    assert steps(events) == []
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("torn", ['{"step": 3, "x/y', "{", "7\n", "null", '{"x/y": 1}\n'])
def test_rewind_drops_a_torn_last_line(tmp_path: Path, torn: str) -> None:
    events = Events(tmp_path)
    for step in (1, 2):
        events.metrics(step, {"x/y": step})
    with events.path.open("a") as file:
        file.write(torn)
    events.rewind(5)
    events.metrics(3, {"x/y": 3})
    assert steps(events) == [1, 2, 3]


def test_rewind_without_a_file_makes_none(tmp_path: Path) -> None:
    Events(tmp_path).rewind(3)
    assert list(tmp_path.iterdir()) == []


def test_the_summary_grows_and_cannot_be_changed_from_outside(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.summarize({"a/b": 1})
    events.summarize({"a/c": 2, "a/b": 3})
    assert events.summary == {"a/b": 3, "a/c": 2}
    events.summary["a/b"] = 9
    assert events.summary["a/b"] == 3
