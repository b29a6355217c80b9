from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ftcli.cli import pipeline
from ftcli.core.rundir import RunDir
from ftcli.pipeline.plan import forecast
from ftcli.pipeline.recipe import read_recipe
from tests.cli.in_process import Called, ftcli

pytestmark = pytest.mark.usefixtures("toy_stages")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(
        "name: two\nstages:\n  - use: make\n    with: {steps: 2}\n"
        "  - use: join\n    inputs: {data: make.data, others: {again: make.data}}\n"
    )
    return path


@pytest.fixture
def run(tmp_path: Path, recipe: Path) -> Path:
    assert run_it(recipe, tmp_path / "run").code == 0
    return tmp_path / "run"


def run_it(recipe: Path, run: Path, *arguments: str) -> Called:
    return ftcli("run", recipe, "--run", run, "--in-process", *arguments)


def test_a_second_run_is_all_cached(recipe: Path, run: Path) -> None:
    called = run_it(recipe, run)
    assert (called.code, called.err) == (0, "make: cached\njoin: cached\n")
    assert called.out == run_it(recipe, run).out


def test_run_as_json(recipe: Path, run: Path) -> None:
    value = json.loads(run_it(recipe, run, "--json").out)
    assert [item["id"] for item in value] == ["make", "join"]
    assert Path(value[1]["outputs"]["report"]["path"], "report.html").is_file()


def test_run_takes_set_until_and_force(recipe: Path, tmp_path: Path) -> None:
    called = run_it(recipe, tmp_path / "run", "--set", "make.text=x: y", "--set", "make.steps=3", "--until", "make")
    assert called.err.splitlines()[0] == "make: run (first time)"
    assert "join" not in called.err + called.out
    forced = run_it(recipe, tmp_path / "run", "--set", "make.text=x: y", "--set", "make.steps=3", "--force", "make")
    assert [line for line in forced.err.splitlines() if ": run" in line] == [
        "make: run (forced)",
        "join: run (first time)",
    ]


def test_the_run_directory_is_named_after_the_recipe(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ftcli("run", recipe, "--in-process").code == 0
    assert (tmp_path / "runs" / "two" / "stages" / "join" / "latest").exists()


def test_a_dry_run_says_what_would_run_and_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    called = run_it(recipe, tmp_path / "run", "--dry-run")
    assert (called.code, called.out, called.err) == (
        0,
        "make: run (first time)\njoin: decided later (after make)\n",
        "",
    )
    assert not (tmp_path / "run").exists()
    value = json.loads(run_it(recipe, tmp_path / "run", "--dry-run", "--json").out)
    assert [item["runs"] for item in value] == [True, None]


def test_plan_prints_every_setting_with_its_origin(recipe: Path, run: Path) -> None:
    called = ftcli("plan", recipe, "--run", run, "--set", "make.words=[a, b]")
    assert (called.code, called.err) == (0, "")
    assert called.out.splitlines() == [
        "make: run (words default -> ['a', 'b'])",
        f"    steps = 2           # {recipe}:4",
        "    words = ['a', 'b']  # --set",
        "join: decided later (after make)",
        "    data: make.data",
        "    others: make.data",
    ]
    assert json.loads(ftcli("plan", recipe, "--run", run, "--json").out)[0]["settings"][0]["key"] == "steps"


def test_a_recipe_with_mistakes_exits_2_with_all_of_them_and_runs_nothing(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(
        recipe.read_text().replace("steps: 2", "stepps: 2, mode: fanci").replace("data: make", "dta: make")
    )
    for command in ("run", "plan"):
        called = ftcli(command, recipe, "--run", tmp_path / "run")
        assert called.code == 2
        assert called.out == ""
        assert f"{recipe}:4: make: unknown key stepps\n  hint: did you mean steps?\n" in called.err
        assert called.err.startswith(f"error: {recipe}:4: make: mode: ")
        assert f"{recipe}:6: join: unknown input dta\n  hint: did you mean data?\n" in called.err
    assert not (tmp_path / "run").exists()


def test_status_shows_what_is_done_and_what_is_not(recipe: Path, run: Path) -> None:
    failed = run_it(recipe, run, "--set", "make.fail=error")
    assert failed.code == 1
    called = ftcli("status", "--run", run)
    assert called.code == 0
    rows = [line.split() for line in called.out.splitlines()]
    assert rows[0] == ["stage", "ended", "seconds", "size", "path"]
    assert [row[0] for row in rows[1:]] == ["make", "join", "make"]
    assert rows[3][1] == "unfinished"
    assert (run / rows[1][-1]).is_dir()
    assert (run / rows[3][-1]).is_dir()
    value = json.loads(ftcli("status", "--run", run, "--json").out)
    assert [item["id"] for item in value["done"]] == ["make", "join"]
    assert [Path(path).is_dir() for path in value["pending"].values()] == [True]


def test_a_recipe_waits_for_people_with_code_3_and_goes_on_when_they_have_answered(tmp_path: Path) -> None:
    recipe, run = tmp_path / "people.yaml", tmp_path / "run"
    recipe.write_text("name: people\nstages:\n  - use: make\n  - use: ask\n  - {use: make, id: after}\n")
    called = run_it(recipe, run)
    assert called.code == 3
    assert called.err.splitlines()[-3:] == [
        "ask: run (first time)",
        "ask: 0 of 2 answers",
        f"hint: ftcli serve --run {run}",
    ]
    rows = [line.split("  ") for line in ftcli("status", "--run", run).out.splitlines()[1:]]
    assert [(row[0], "waits for people" in row) for row in rows] == [("make", False), ("ask", True)]
    value = json.loads(ftcli("status", "--run", run, "--json").out)
    assert value["waiting"] == list(value["pending"])
    (run / "human").mkdir()
    (run / "human" / "desk.sqlite").write_text("yes\nno\n")
    called = run_it(recipe, run)
    assert (called.code, called.err.splitlines()[:2]) == (
        0,
        ["make: cached", "ask: run (waited for people: looks again)"],
    )
    assert "unfinished" not in ftcli("status", "--run", run).out


def test_lineage_as_tree_and_as_json(run: Path) -> None:
    lines = ftcli("lineage", "--run", run).out.splitlines()
    assert lines[0].startswith("join  ")
    assert lines[1].startswith("  data: make  ")
    assert lines[2].startswith("  others: make  ")
    value = json.loads(ftcli("lineage", "--run", run, "--json").out)
    assert {item["id"] for item in value} == {"make", "join"}


def test_verify_exits_76_and_names_each_change(run: Path) -> None:
    assert ftcli("verify", "--run", run).out == "2 published outputs, all as recorded\n"
    assert ftcli("verify", "--run", run, "--json").out == "{}\n"
    made = (run / "stages" / "make" / "latest").resolve()
    joined = (run / "stages" / "join" / "latest").resolve()
    (made / "data" / "train.jsonl").write_bytes(bytes(len((made / "data" / "train.jsonl").read_bytes())))
    (made / "added.txt").touch()
    (joined / "report" / "report.html").unlink()
    called = ftcli("verify", "--run", run)
    assert (called.code, called.out) == (76, "")
    assert called.err.splitlines() == [
        f"error: stages/make/{made.name}/added.txt: not recorded",
        f"stages/make/{made.name}/data/train.jsonl: content changed",
        f"stages/join/{joined.name}/report/report.html: missing",
        "hint: make it again: --force join --force make",
    ]
    value = json.loads(ftcli("verify", "--run", run, "--json").out)
    assert len(value) == 2


@pytest.mark.parametrize("command", ["status", "lineage", "verify"])
def test_a_folder_that_is_no_run_directory_exits_2(tmp_path: Path, command: str) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        called = ftcli(command, "--run", path)
        assert (called.code, called.out) == (2, "")
        assert f"{path}: no run directory" in called.err
    assert not (tmp_path / "gone").exists()


def test_bad_data_exits_65_and_publishes_nothing(recipe: Path, tmp_path: Path) -> None:
    called = run_it(recipe, tmp_path / "run", "--set", "make.fail=bad-data")
    assert (called.code, called.out) == (65, "")
    assert called.err.endswith("error: row 2 is bad\nhint: repair row 2\n")
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(
    ("cached", "modules"), [([], {"m.b", "m.c"}), (["make"], {"m.c"}), (["make", "join", "last"], set())]
)
def test_what_stages_after_the_first_that_runs_import_is_imported_for_all(
    cached: list[str], modules: set[str], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(pipeline, "WarmWorkers", given.append)
    plan = read_recipe(recipe, [])
    first, second = forecast(plan, RunDir(tmp_path / "run"))
    forecasts = [
        replace(
            item, entry=replace(item.entry, stage=replace(item.entry.stage, module=module)), runs=name not in cached
        )
        for name, item, module in (("make", first, "m.a"), ("join", second, "m.b"), ("last", second, "m.c"))
    ]
    pipeline._workers(forecasts, in_process=False)
    assert given == [modules]
