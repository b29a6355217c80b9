from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ftcli.cli import screen as module
from ftcli.cli.screen import Screen, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b[H gone", "\\x1b[2J\\x1b[H gone"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\x08\x00\x7f", "a\\rb\\x08\\x00\\x7f"),
        ("\x9b31m red", "\\x9b31m red"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\U000e0041\ufeff\u200b", "\\U000e0041\\ufeff\\u200b"),
        ("two\u2028lines", "two\\u2028lines"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("naïve 你好 🙂 👩\u200d🚀 क\u200cष", "naïve 你好 🙂 👩\u200d🚀 क\u200cष"),
        ("[bold]\\x1b :smile:", "[bold]\\x1b :smile:"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def terminal(monkeypatch: pytest.MonkeyPatch, width: int, height: int = 24) -> None:
    def make(**options: Any) -> Console:
        return Console(**options, force_terminal=True, legacy_windows=False, width=width, height=height, _environ={})

    monkeypatch.setattr(module, "Console", make)


def two_answers(first: str, second: str) -> None:
    screen = Screen(["base", "lora"])
    with screen.turn():
        for place, text in enumerate((first, second)):
            screen.begin(place)
            for char in text:
                screen.add(place, char)
            screen.end(place)


def test_one_model_needs_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(["lora"])
    with screen.turn():
        screen.begin(0)
        screen.add(0, "yes\x1b[2J")
        screen.end(0)
    assert capsys.readouterr().out == "yes\\x1b[2J\n"


def test_characters_that_the_encoding_of_stdout_lacks_are_written_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    screen = Screen(["lora"])
    screen.add(0, "你")
    screen.end(0)
    assert raw.getvalue() == b"\\u4f60\n"


def test_two_answers_are_named_one_below_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch, 99)
    two_answers("yes", "no")
    assert capsys.readouterr().out == "base:\nyes\n\nlora:\nno\n"


def last_drawing(text: str) -> list[str]:
    """What was drawn after the last line was taken away."""
    return [line.rstrip() for line in text.rpartition("\x1b[2K")[2].replace("\x1b[?25h", "").strip("\n").split("\n")]


def test_on_a_wide_terminal_they_stand_beside_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch, 103)
    two_answers("word " * 20, "\x1b[2J[bold]no\n  indented")
    text = capsys.readouterr().out
    rows = last_drawing(text)
    assert [row.split() for row in rows] == [
        ["\x1b[1mbase", "\x1b[0m", "\x1b[1mlora", "\x1b[0m"],
        ["word"] * 9 + ["\\x1b[2J[bold]no"],
        ["word"] * 9 + ["indented"],
        ["word"] * 2,
    ]
    assert rows[1].index("\\x1b") == 50, "100 columns are shared by two"
    assert rows[2].index("indented") == 52
    assert "\x1b[2J" not in text


def test_a_long_answer_shows_its_end_while_it_grows_and_all_of_it_at_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch, 120, height=10)
    screen = Screen(["base", "lora"])
    with screen.turn():
        screen.begin(0)
        screen.add(0, "\n".join(f"line{number}" for number in range(30)))
        assert screen._columns is not None
        live = io.StringIO()
        Console(file=live, width=120, height=10).print(screen._columns)
        rows = [row.strip() for row in live.getvalue().strip().splitlines()]
        assert rows == ["base" + " " * (len(rows[0]) - 8) + "lora", *(f"line{number}" for number in range(22, 30))]
        screen.end(0)
    assert [row.strip() for row in last_drawing(capsys.readouterr().out)[1:]] == [
        f"line{number}" for number in range(30)
    ]


def test_a_silent_screen_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(["base", "lora"], silent=True)
    with screen.turn():
        screen.begin(0)
        screen.add(0, "yes")
        screen.end(0)
    assert capsys.readouterr().out == ""
