"""How several processes are asked for: ``--processes`` on the command line, ``launch:`` in a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftcli.core.errors import UsageError
from ftcli.pipeline.recipe import read_recipe
from ftcli.stages import STAGES
from tests.cli.in_process import ftcli
from tests.launch.shared_toy import SHARED_STAGES
from tests.launch.test_environment import gpus as gpus
from tests.pipeline.conftest import toy_stages as toy_stages


@pytest.fixture(autouse=True)
def run(tmp_path: Path, toy_stages: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory, with the toy stages in the table."""
    for name, entry in SHARED_STAGES.items():
        monkeypatch.setitem(STAGES, name, entry)
    return tmp_path / "run"


def recipe(folder: Path, launch: str, use: str = "share") -> Path:
    path = folder / "r.yaml"
    path.write_text(f"stages:\n  - use: {use}\n    launch: {launch}\n")
    return path


@pytest.mark.enable_socket
def test_the_flag_starts_so_many(run: Path) -> None:
    called = ftcli("share", "--run", run, "--processes", 2)
    assert called.code == 0, called.err
    assert (Path(called.out.strip()) / "said.txt").read_text() == "0/2 1/2"
    again = ftcli("share", "--run", run, "--json")
    assert "share: cached" in again.err
    assert json.loads(again.out)["facts"]["perf/processes"] == 2
    assert "processes" not in json.loads(again.out)["config"]


def test_one_process_is_the_default(run: Path) -> None:
    assert (Path(ftcli("share", "--run", run).out.strip()) / "said.txt").read_text() == "0/1"


def test_only_a_stage_that_can_share_its_work_has_the_flag(run: Path) -> None:
    assert "--processes" in ftcli("share", "--help").out
    assert "--processes" not in ftcli("make", "--help").out
    called = ftcli("make", "--run", run, "--processes", 2)
    assert (called.code, called.err.splitlines()[0]) == (2, "error: make: no such option --processes")


@pytest.mark.parametrize("number", ["0", "two"])
def test_the_flag_wants_a_number_from_1_on(run: Path, number: str) -> None:
    called = ftcli("share", "--run", run, "--processes", number)
    assert called.code == 2
    assert "--processes" in called.err


def test_several_processes_inside_this_one_are_refused(tmp_path: Path, run: Path) -> None:
    called = ftcli("share", "--run", run, "--processes", 2, "--in-process")
    text = "2 processes cannot run inside this one\nhint: leave out --in-process, or ask for one process\n"
    assert (called.code, called.err) == (2, f"error: {text}")
    assert not run.exists()
    called = ftcli("run", recipe(tmp_path, "{processes: 2}"), "--run", run, "--in-process")
    assert (called.code, called.err) == (2, f"error: share: launch: {text}")


@pytest.mark.parametrize("gpus", [1], indirect=True)
def test_too_few_gpus_are_an_error_unless_the_result_is_there(gpus: None, run: Path) -> None:
    called = ftcli("share", "--run", run, "--processes", 2)
    assert (called.code, called.err.splitlines()[0]) == (2, "error: 2 processes need a GPU each, 1 visible (0)")
    assert not run.exists()
    assert ftcli("share", "--run", run).code == 0
    assert ftcli("share", "--run", run, "--processes", 2).err == "share: cached\n"


@pytest.mark.enable_socket
def test_a_recipe_starts_so_many_and_its_plan_says_so(tmp_path: Path, run: Path) -> None:
    path = recipe(tmp_path, "{processes: 2}")
    assert read_recipe(path).entries[0].processes == 2
    planned = ftcli("plan", path, "--run", run)
    assert planned.out == "share: run (first time)\n    launch: 2 processes\n"
    called = ftcli("run", path, "--run", run)
    assert called.code == 0, called.err
    (folder,) = (path for path in (run / "stages" / "share").iterdir() if not path.is_symlink())
    assert (folder / "data" / "said.txt").read_text() == "0/2 1/2"
    assert json.loads(ftcli("plan", recipe(tmp_path, "{}"), "--run", run, "--json").out)[0] == {
        "id": "share",
        "stage": "share",
        "runs": False,
        "reason": "cached",
        "processes": 1,
        "inputs": {},
        "settings": [],
    }


@pytest.mark.parametrize(
    ("launch", "use", "problem"),
    [
        (
            "{processes: 2}",
            "make",
            "3: make: launch: the work of make cannot be shared by several processes\n  hint: leave launch out",
        ),
        ("2", "share", "3: share: launch is a mapping, got 2"),
        ("{proceses: 2}", "share", "3: share: launch: unknown key proceses\n  hint: did you mean processes?"),
        ("{gpus: 2}", "share", "3: share: launch: unknown key gpus\n  hint: it has processes"),
        ("{processes: 0}", "share", "3: share: launch: processes: a number from 1 on is needed, got 0"),
        ("{processes: true}", "share", "3: share: launch: processes: a number from 1 on is needed, got True"),
        ("{processes: two}", "share", "3: share: launch: processes: a number from 1 on is needed, got 'two'"),
    ],
)
def test_a_wrong_launch_is_reported_with_its_line(tmp_path: Path, launch: str, use: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_recipe(recipe(tmp_path, launch, use))
    assert caught.value.message == f"{tmp_path}/r.yaml:{problem}"


@pytest.mark.parametrize("gpus", [1], indirect=True)
def test_a_recipe_that_wants_more_gpus_than_there_are_fails_before_its_first_stage(
    gpus: None, tmp_path: Path, run: Path
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("stages:\n  - use: make\n  - use: share\n    launch: {processes: 2}\n")
    assert ftcli("plan", path, "--run", run).code == 0, "a plan may be made elsewhere"
    called = ftcli("run", path, "--run", run)
    assert called.code == 2
    assert called.err.startswith("error: share: launch: 2 processes need a GPU each, 1 visible (0)\nhint: ask for 1")
    assert not (run / "stages").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["share"], "start the command once, with --processes N"),
        (["make"], "start the command once, which needs one process only"),
        (["run", "r.yaml"], "start the command once, with launch: {processes: N} on an entry of the recipe"),
    ],
)
def test_under_another_launcher_a_command_is_refused(
    arguments: list[str], hint: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    called = ftcli(*arguments, "--run", run)
    assert called.code == 2
    assert called.err.splitlines()[-1] == f"hint: {hint}"
    assert "this is rank 1 of 2" in called.err
    assert not run.exists()
