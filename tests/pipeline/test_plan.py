from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import UsageError
from ftcli.core.rundir import RunDir
from ftcli.launch.inline import run_inline
from ftcli.pipeline.plan import describe, forecast, run_recipe, wanted
from ftcli.pipeline.recipe import Recipe, read_recipe

pytestmark = pytest.mark.usefixtures("toy_stages")

FORK = """
name: fork
stages:
  - use: make
  - {use: make, id: two, with: {text: bye}}
  - {use: join, inputs: {data: make.data}}
  - {use: join, id: both, inputs: {data: two.data, others: [make.data]}}
"""


def recipe(folder: Path, text: str = FORK, *sets: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(text)
    return read_recipe(path, sets)


def run_all(plan: Recipe, run: RunDir, **options: Any) -> list[str]:
    said: list[str] = []
    run_recipe(plan, run, run_inline, lambda event: None, said.append, **options)
    return said


def forecasts(plan: Recipe, run: RunDir, **options: Any) -> list[tuple[str, bool | None, str]]:
    return [(item.entry.id, item.runs, item.reason) for item in forecast(plan, run, **options)]


def test_until_runs_a_stage_and_only_what_it_needs(tmp_path: Path) -> None:
    plan = recipe(tmp_path)
    assert [entry.id for entry in wanted(plan, None)] == ["make", "two", "join", "both"]
    assert [entry.id for entry in wanted(plan, "join")] == ["make", "join"]
    assert [entry.id for entry in wanted(plan, "both")] == ["make", "two", "both"]
    run = RunDir(tmp_path / "run")
    assert run_all(plan, run, until="join") == ["make: run (first time)", "join: run (first time)"]
    assert run.ids() == ["make", "join"]
    assert run.index()["order"] == ["make", "two", "join", "both"]


def test_an_unknown_stage_to_stop_at_or_force_is_refused_before_anything_runs(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    for options in ({"until": "bot"}, {"force": ["bot"]}):
        with pytest.raises(UsageError, match="no stage bot") as caught:
            run_all(recipe(tmp_path), run, **options)
        assert caught.value.hint == "did you mean both?"
    assert not run.root.exists()


def test_one_setting_reruns_its_stage_and_what_depends_on_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run_all(recipe(tmp_path), run)
    assert run_all(recipe(tmp_path), run) == ["make: cached", "two: cached", "join: cached", "both: cached"]
    assert run_all(recipe(tmp_path, FORK, "two.text=ciao"), run) == [
        "make: cached",
        "two: run (text bye -> ciao)",
        "join: cached",
        "both: run (data changed)",
    ]


def test_a_forced_stage_that_gives_the_same_bytes_leaves_the_rest_cached(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run_all(recipe(tmp_path), run)
    assert run_all(recipe(tmp_path), run, force=["make"]) == [
        "make: run (forced)",
        "two: cached",
        "join: cached",
        "both: cached",
    ]


def test_the_forecast_is_what_then_happens_and_writes_nothing(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    plan = recipe(tmp_path)
    assert forecasts(plan, run) == [
        ("make", True, "first time"),
        ("two", True, "first time"),
        ("join", None, "after make"),
        ("both", None, "after two, make"),
    ]
    assert not run.root.exists()
    run_all(plan, run, until="join")
    assert forecasts(plan, run) == [
        ("make", False, "cached"),
        ("two", True, "first time"),
        ("join", False, "cached"),
        ("both", None, "after two"),
    ]
    assert forecasts(plan, run, until="join", force=["make"]) == [
        ("make", True, "forced"),
        ("join", None, "after make"),
    ]


def test_the_forecast_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.jsonl").write_text("{}\n")
    text = "stages:\n  - {use: sample, inputs: {model: demo:smollm2, data: ./d}}\n  - {use: prep, inputs: {source: hf:a/b}}\n"
    plan = recipe(tmp_path, text)
    assert forecasts(plan, RunDir(tmp_path / "run")) == [
        ("sample", True, "demo:smollm2 is not fetched yet"),
        ("prep", True, "hf:a/b could not be looked up"),
    ]
    assert not (tmp_path / "run").exists()


def test_everything_from_outside_is_checked_before_the_first_stage(tmp_path: Path) -> None:
    for name in ("d", "m"):
        (tmp_path / name).mkdir()
    text = (
        "stages:\n  - use: make\n  - {use: join, inputs: {data: ./d}}\n"
        "  - {use: sample, inputs: {model: ./m, data: make.data}}\n"
    )
    run = RunDir(tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        run_all(recipe(tmp_path, text), run)
    lines = caught.value.message.split("\n")
    assert lines[0].startswith(f"join: input data: {tmp_path}/d: no train.jsonl")
    assert lines[1].startswith(f"sample: input model: {tmp_path}/m: no config.json")
    assert "ftcli prep" in caught.value.hint
    assert not run.root.exists()


def test_two_inputs_with_their_own_labels_are_not_mixed_up(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "two")):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "train.jsonl").write_text(text)
    text = "stages:\n  - use: make\n  - use: join\n    inputs: {data: make.data, others: {x: a/data, y: b/data}}\n"
    run = RunDir(tmp_path / "run")
    run_all(recipe(tmp_path, text), run)
    item = run.latest("join")
    assert item is not None
    assert (item.output("report") / "report.html").read_text().endswith("onetwo")
    assert (item.output("report") / "summary.txt").read_text() == "3 inputs: make, x, y\n"


def test_the_description_has_every_value_that_is_not_a_default_with_its_origin(tmp_path: Path) -> None:
    plan = recipe(tmp_path, FORK.replace("name: fork", "name: fork\ndefaults: {seed: 7}"), "make.steps=5")
    make, two, join, both = describe(forecast(plan, RunDir(tmp_path / "run")))
    path = tmp_path / "r.yaml"
    assert make == {
        "id": "make",
        "stage": "make",
        "runs": True,
        "reason": "first time",
        "processes": 1,
        "inputs": {},
        "settings": [
            {"key": "seed", "value": 7, "origin": f"{path}:3 (defaults)"},
            {"key": "steps", "value": 5, "origin": "--set"},
        ],
    }
    assert two["settings"][1] == {"key": "text", "value": "bye", "origin": f"{path}:6"}
    assert join["inputs"] == {"data": [{"label": "make", "ref": "make.data"}]}
    assert both["inputs"]["others"] == [{"label": "make", "ref": "make.data"}]
