from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console as RichConsole

from ftcli.core import console as module
from ftcli.core.console import Console, shown_text


def progress(task: str, done: int, total: int, **shown: Any) -> dict[str, Any]:
    return {"event": "progress", "task": task, "done": done, "total": total, "shown": shown}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds since the machine started, as the console sees it."""
    now = [3.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ({"loss": 1.25, "tokens_per_s": 310}, "loss 1.25  310 tok/s"),
        ({"loss": None, "rows": 3}, "rows 3"),
        ({"lr": 0.0002}, "lr 0.0002"),
        ({"tokens_per_s": 123456.7}, "123457 tok/s"),
        ({"loss": float("nan")}, "loss nan"),
        ({"state": "warm"}, "state warm"),
        ({}, ""),
    ],
)
def test_figures_are_short(shown: dict[str, Any], text: str) -> None:
    assert shown_text(shown) == text


def test_without_a_terminal_one_line_is_printed_every_thirty_seconds(clock: list[float]) -> None:
    stream = io.StringIO()
    with Console(stream) as console:
        for done in range(1, 101):
            console.sink(progress("train", done, 100, loss=1 / done))
            clock[0] += 1.0
    assert stream.getvalue().splitlines() == [
        "  train 1/100  loss 1",
        "  train 31/100  loss 0.03226  69 s left",
        "  train 61/100  loss 0.01639  39 s left",
        "  train 91/100  loss 0.01099  9 s left",
        "  train 100/100  loss 0.01",
    ]


def test_the_time_left_of_a_resumed_task_counts_from_where_it_resumed(clock: list[float]) -> None:
    stream = io.StringIO()
    console = Console(stream)
    for done in (90, 93):
        console.sink(progress("train", done, 99))
        clock[0] += 30.0
    assert stream.getvalue().splitlines()[-1] == "  train 93/99    60 s left"


def test_two_tasks_are_printed_apart(clock: list[float]) -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.sink(progress("one", 1, 3))
    console.sink(progress("two", 1, 3))
    console.sink(progress("one", 2, 3))
    assert stream.getvalue().split() == ["one", "1/3", "two", "1/3"]


def test_notes_and_decisions_are_printed_as_they_are() -> None:
    stream = io.StringIO()
    with Console(stream) as console:
        console.say("prep: run (first time) :warning: [red]no markup[/red] " + "x" * 200)
        console.sink({"event": "note", "text": "[bold] stays"})
        console.sink({"event": "metrics", "step": 1, "train/loss": 1.0})
    assert stream.getvalue() == (
        "prep: run (first time) :warning: [red]no markup[/red] " + "x" * 200 + "\n  [bold] stays\n"
    )


def test_on_a_terminal_a_bar_moves_and_is_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()

    def terminal(**options: Any) -> RichConsole:
        return RichConsole(**options, force_terminal=True, width=100, legacy_windows=False)

    monkeypatch.setattr(module, "RichConsole", terminal)
    with Console(stream) as console:
        console.sink(progress("train", 1, 4, loss=2.0))
        console.sink(progress("train", 3, 4, loss=1.5))
        console.sink({"event": "note", "text": "half-way"})
        console.say("next")
        console.sink(progress("evaluate", 1, 2))
    text = stream.getvalue()
    assert "3/4" in text
    assert "loss 1.5" in text
    assert text.index("half-way") < text.index("next") < text.index("evaluate")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 2, "the cursor is shown again after each bar"
