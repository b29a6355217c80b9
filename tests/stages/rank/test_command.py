"""`ftcli rank` and `ftcli run` as a user types them; the votes come from the desk and, in CI, from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.in_process import ftcli
from tests.stages.rank.judging import at_desk, by_text, sample_row, samples


@pytest.fixture
def answers(tmp_path: Path) -> list[Path]:
    """Two folders of samples, of a model each."""
    texts = {"base": "bad answer", "tuned": "good answer"}
    for name, text in texts.items():
        samples(tmp_path / name, [sample_row(n, [("", f"{text} {n}")]) for n in range(6)])
    return [tmp_path / name for name in texts]


def test_the_command_waits_with_code_3_and_goes_on(tmp_path: Path, answers: list[Path]) -> None:
    run = tmp_path / "run"
    command = ["rank", "--run", run, "--in-process", *[word for path in answers for word in ("--samples", path)]]
    called = ftcli(*command)
    assert called.code == 3
    assert "rank: 0 of 6 judgements" in called.err
    assert "error" not in called.err
    assert f"hint: ftcli serve --run {run} opens the desk" in called.err
    at_desk(run / "human" / "desk.sqlite", by_text("good"))
    called = ftcli(*command)
    assert called.code == 0
    assert "6 pairs (6 train, 0 validation, 0 test)" in called.err
    assert "tuned against base: win rate 1.000" in called.err
    assert (Path(called.out.strip()) / "train.jsonl").read_text().count("\n") == 6


def test_a_recipe_with_a_file_of_votes_asks_nobody(tmp_path: Path, answers: list[Path]) -> None:
    first = ["rank", "--run", tmp_path / "run", "--in-process", "--samples", answers[0], "--samples", answers[1]]
    assert ftcli(*first).code == 3
    at_desk(tmp_path / "run" / "human" / "desk.sqlite", by_text("good"))
    pairs = Path(ftcli(*first).out.strip())
    recipe = tmp_path / "ci.yaml"
    recipe.write_text(
        "name: ci\nstages:\n  - use: rank\n    inputs:\n      samples: {base: base, tuned: tuned}\n"
        f"      votes: {pairs.parent / 'report' / 'votes.jsonl'}\n"
    )
    called = ftcli("run", recipe, "--run", tmp_path / "ci", "--in-process", "--json")
    assert called.code == 0
    (item,) = json.loads(called.out)
    assert (Path(item["outputs"]["pairs"]["path"]) / "train.jsonl").read_bytes() == (pairs / "train.jsonl").read_bytes()
    assert not (tmp_path / "ci" / "human").exists()
