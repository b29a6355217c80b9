from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from ftcli.core.stage import Stage
from ftcli.launch.spec import load_stage
from ftcli.stages import STAGES
from tests.cli.in_process import ftcli

ROWS = [{"prompt": "What?", "response": "the cat", "id": 7}, {"prompt": "Who?", "chosen": "a", "rejected": "ß b"}]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory in which reward is done."""
    folder = tmp_path_factory.mktemp("run")
    settings = ("--max-steps", "1", "--precision", "fp32", "--max-length", "64")
    made = ftcli("reward", "--run", folder, "--in-process", "--model", tiny_model, "--data", tiny_pairs, *settings)
    assert made.code == 0, made.err
    assert made.out.strip().endswith("/reward")
    assert "PPO must not use this reward model" in made.err
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_rows_come_back_in_order_on_stdout_and_what_was_done_on_stderr(run: Path, rows: Path) -> None:
    called = ftcli("reward", "--run", run, "--score", rows)
    assert called.code == 0, called.err
    first, second = map(json.loads, called.out.splitlines())
    assert {name: value for name, value in first.items() if name != "score"} == ROWS[0]
    assert isinstance(first["score"], float)
    assert set(second) == {*ROWS[1], "chosen_score", "rejected_score"}
    assert second["rejected"] == "ß b"
    assert "2 rows, 3 texts scored" in called.err


def test_stdin_and_a_named_reward_model_give_the_same(
    run: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ftcli("reward", "--run", run, "--score", rows).out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.read_bytes())))
    assert ftcli("reward", "--run", run, "--score", "-").out == expected
    folder = shutil.copytree(run / "stages" / "reward" / "latest" / "reward", tmp_path / "copy")
    assert ftcli("reward", "--run", tmp_path / "other", "--score", rows, "--reward", folder).out == expected


def test_a_bad_row_ends_with_code_65_and_nothing_on_stdout(run: Path, rows: Path) -> None:
    with rows.open("a") as file:
        file.write('{"prompt": "What?"}\n')
    called = ftcli("reward", "--run", run, "--score", rows)
    assert (called.code, called.out) == (65, "")
    assert f"{rows}:3: it has a prompt and no answer" in called.err


def test_options_that_would_do_nothing_are_refused(run: Path, rows: Path) -> None:
    called = ftcli("reward", "--run", run, "--score", rows, "--max-length", "9", "--data", "x", "--force")
    assert called.code == 2
    assert all(name in called.err for name in ("--max-length", "--data", "--force"))
    assert ftcli("reward", "--run", run, "--score", rows, "--no-use-margin").code == 2
    alone = ftcli("reward", "--run", run, "--reward", "reward")
    assert alone.code == 2
    assert "give --score FILE, too" in alone.err


def test_a_file_or_a_reward_model_that_is_not_there_is_named(run: Path, rows: Path, tmp_path: Path) -> None:
    missing = ftcli("reward", "--run", run, "--score", tmp_path / "none.jsonl")
    assert missing.code == 2
    assert f"--score: {tmp_path / 'none.jsonl'}: cannot be read: No such file" in missing.err
    nothing = ftcli("reward", "--run", tmp_path / "empty", "--score", rows)
    assert nothing.code == 2
    assert "holds no output of stage reward" in nothing.err
    assert "--reward" in nothing.err
    other = ftcli("reward", "--run", run, "--score", rows, "--reward", "rewrad")
    assert other.code == 2
    assert other.err.startswith("error: --reward: ")


@pytest.mark.parametrize("name", STAGES)
def test_only_stages_that_can_score_have_the_option(name: str) -> None:
    stage: Stage[object] = load_stage(STAGES[name][0])  # type: ignore[type-var]
    assert ("--score FILE" in ftcli(name, "--help").out) == (stage.score is not None) == (name == "reward")
