from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console as RichConsole

from ftcli.core import console as module
from ftcli.core import live
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


class Terminal:
    """What a terminal shows of a stream of text, for the few control sequences that rich writes. A resize breaks lines anew."""

    def __init__(self, width: int) -> None:
        self.stream = io.StringIO()
        self._width = width
        self._read = 0
        self._rows = [""]
        self._row = self._column = 0

    def rows(self) -> list[str]:
        """The rows so far; fails on a row that is too long."""
        new = self.stream.getvalue()[self._read :]
        self._read += len(new)
        for control, text in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", new):
            self._obey(control) if control else self._put(text)
        assert all(len(row) <= self._width for row in self._rows)
        return "\n".join(row.rstrip() for row in self._rows).rstrip("\n").split("\n")

    def _obey(self, control: str) -> None:
        if control == "\r":
            self._column = 0
        elif control == "\n":
            self._row, self._column = self._row + 1, 0
            self._rows += [""] * (self._row + 1 - len(self._rows))
        elif control.endswith("A"):
            self._row -= int(control[2:-1])
        elif control.endswith("K"):
            self._rows[self._row] = ""
        else:
            assert control[-1] in "mhl", f"{control!r} is not known here"

    def _put(self, text: str) -> None:
        row = self._rows[self._row].ljust(self._column)
        self._rows[self._row] = row[: self._column] + text + row[self._column + len(text) :]
        self._column += len(text)

    def resize(self, width: int) -> None:
        self.rows()
        assert not "".join(self._rows[self._row + 1 :]), "the cursor is at the end"
        self._rows = self._rows[: self._row + 1]
        self._width = width
        self._rows = [row[start : start + width] for row in self._rows for start in range(0, max(len(row), 1), width)]
        self._row, self._column = len(self._rows) - 1, len(self._rows[-1])


MakeConsole = Callable[..., tuple[Console, Terminal, RichConsole]]


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> MakeConsole:
    """A console on a terminal that redraws only when something is printed, so that a test knows what it sees."""
    monkeypatch.setattr(live, "REDRAWS_PER_S", 0.001)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)

    def make(width: int = 100, height: int = 30, **options: Any) -> tuple[Console, Terminal, RichConsole]:
        made: list[RichConsole] = []

        def terminal(**given: Any) -> RichConsole:
            settings = {"force_terminal": True, "legacy_windows": False, **options}
            made.append(RichConsole(**given, **settings, width=width, height=height))
            return made[0]

        monkeypatch.setattr(module, "RichConsole", terminal)
        shown = Terminal(width)
        return Console(shown.stream), shown, made[0]

    return make


def train(console: Console, first: int, last: int, total: int = 20, **values: Any) -> None:
    for step in range(first, last + 1):
        console.sink(progress("train", step, total, loss=4.0 / step))
        console.sink({"event": "metrics", "step": step, "train/loss": 4.0 / step, "train/lr": 2e-4, **values})


def test_on_a_terminal_a_bar_moves_and_is_taken_down(on_terminal: MakeConsole) -> None:
    console, terminal, _ = on_terminal()
    with console:
        console.sink(progress("train", 1, 4, loss=2.0))
        console.sink(progress("train", 3, 4, loss=1.5))
        console.sink({"event": "note", "text": "half-way"})
        console.say("next")
        console.sink(progress("evaluate", 1, 2))
    text = terminal.stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 2, "the cursor is shown again after each bar"
    note, train_bar, said, evaluate_bar = terminal.rows()
    assert (note, said) == ("  half-way", "next")
    assert re.fullmatch(r"  train ━+╸?╺?━* 3/4 0:00:00 -:--:-- loss 1.5|  train .* 3/4 .* loss 1.5", train_bar)
    assert evaluate_bar.startswith("  evaluate ")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_loss_is_drawn_below_the_bar_while_it_runs(on_terminal: MakeConsole, width: int) -> None:
    console, terminal, _ = on_terminal(width)
    train(console, 1, 3)
    console.sink({"event": "metrics", "step": 3, "val/loss": 2.5})
    train(console, 4, 5, **{"perf/peak_memory_bytes": 1_400_000_000})
    console.sink({"event": "note", "text": "draw"})
    rows = terminal.rows()
    note, bar, *curve, steps, caption = rows
    assert note == "  draw"
    assert "5/20" in bar
    assert "loss 0.8" in bar
    assert len(curve) == 5
    assert curve[0].startswith("    4 ┤")
    assert curve[4].startswith("  0.8 ┤")
    assert curve[4].endswith(" 0.8")
    assert sum(row.count("o") for row in curve) == 1, "the validation loss is marked"
    assert steps.split() == ["1", "5"]
    assert caption == "  train/loss  o val/loss 2.5  lr 0.0002  1.4 GB"
    assert max(map(len, rows)) <= width - 3, "a terminal echoes ^C at the end of the last row, which must not break it"
    assert max(map(len, curve)) == min(width - 3, 72)
    console.say("done")
    assert terminal.rows() == [note, bar, "done"], "the bar stays, the curve goes"


def test_an_error_takes_the_curve_down_too(on_terminal: MakeConsole) -> None:
    console, terminal, _ = on_terminal()

    def fail() -> None:
        with console:
            train(console, 1, 3)
            console.sink({"event": "note", "text": "draw"})
            assert len(terminal.rows()) == 9
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert [row.split()[0] for row in terminal.rows()] == ["draw", "train"]
    assert terminal.stream.getvalue().endswith("\x1b[?25h")


def test_a_terminal_made_narrower_shows_nothing_twice(on_terminal: MakeConsole) -> None:
    console, terminal, rich = on_terminal(120)
    console.say("before")
    train(console, 1, 9)
    console.sink({"event": "note", "text": "wide"})
    for width in (50, 40, 90):
        terminal.resize(width)
        rich.width = width
        console.sink({"event": "note", "text": f"now {width}"})
    rows = terminal.rows()
    assert rows[:5] == ["before", "  wide", "  now 50", "  now 40", "  now 90"]
    assert len(rows) == 5 + 1 + 7
    assert sum("train" in row for row in rows) == 2, "one bar, one caption"


def test_another_stage_begins_a_curve_of_its_own(on_terminal: MakeConsole) -> None:
    console, terminal, _ = on_terminal()
    train(console, 1, 3)
    console.say("ppo: run")
    console.sink(progress("ppo", 7, 9))
    console.sink({"event": "note", "text": "no curve yet"})
    assert "┤" not in "".join(terminal.rows())
    for step, score in ((7, -1.0), (8, float("nan")), (9, 0.5)):
        console.sink({"event": "metrics", "step": step, "objective/scores": score, "objective/kl": 0.25})
    console.sink({"event": "note", "text": "draw"})
    rows = terminal.rows()
    assert rows[-1] == "  objective/scores  kl 0.25"
    assert rows[-2].split() == ["7", "9"], "it was resumed after 6"
    assert rows[-7].startswith("  0.5 ┤")
    console.say("end")


@pytest.mark.parametrize(
    ("width", "caption"),
    [
        (60, ["objective/scores  o eval/score 0.625  kl 3.25", "length 14.5  entropy 1.75  ev -  1.4 GB"]),
        (80, ["objective/scores  o eval/score 0.625  kl 3.25  length 14.5  entropy 1.75", "ev -  1.4 GB"]),
        (120, ["objective/scores  o eval/score 0.625  kl 3.25  length 14.5  entropy 1.75  ev -  1.4 GB"]),
    ],
)
def test_beside_the_score_stand_its_cost_and_the_health_of_policy_and_critic(
    on_terminal: MakeConsole, width: int, caption: list[str]
) -> None:
    console, terminal, _ = on_terminal(width)
    console.sink({"event": "metrics", "step": 0, "eval/score": 0.25, "eval/kl": 0.0})
    for step in range(1, 9):
        console.sink(progress("ppo", step, 25, score=step / 8))
        beside = {"perf/peak_memory_bytes": 1_400_000_000, "val/explained_variance": None, "policy/entropy_avg": 1.75}
        told = {"rollout/length_mean": 14.5, "objective/kl": 3.25, "objective/scores": step / 8}
        console.sink({"event": "metrics", "step": step, **beside, **told})
    console.sink({"event": "metrics", "step": 8, "eval/score": 0.625})
    console.sink({"event": "note", "text": "draw"})
    note, bar, *drawn = terminal.rows()
    curve, steps, shown = drawn[:5], drawn[5], drawn[6:]
    assert note == "  draw"
    assert "8/25" in bar
    assert sum(row.count("o") for row in curve) == 2, "the held-out score is marked, at the start too"
    assert steps.split() == ["0", "8"]
    assert shown == [f"  {line}" for line in caption]
    console.say("end")
    assert len(terminal.rows()) == 3, "the bar stays, the curve goes"


def test_thousands_of_steps_are_drawn_as_few(on_terminal: MakeConsole) -> None:
    console, terminal, _ = on_terminal()
    train(console, 1, 9000, total=9000)
    console.sink({"event": "note", "text": "draw"})
    rows = terminal.rows()
    assert rows[-2].split()[1] == "9000"
    assert rows[-3].endswith(" 0.0004444")
    console.say("end")


@pytest.mark.parametrize(
    "options", [{"height": 9}, {"force_terminal": False}, {"_environ": {"TERM": "dumb"}}], ids=["low", "pipe", "dumb"]
)
def test_where_it_cannot_be_seen_no_curve_is_drawn(on_terminal: MakeConsole, options: dict[str, Any]) -> None:
    console, terminal, _ = on_terminal(**options)
    train(console, 1, 3)
    console.sink({"event": "note", "text": "draw"})
    console.say("end")
    text = terminal.stream.getvalue()
    assert "train" in text
    assert "┤" not in text
