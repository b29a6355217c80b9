"""A gate's verdict at the command line: the report is there and printed, and the exit code says how it went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftcli.core.stage import Stage
from ftcli.launch.spec import load_stage
from ftcli.stages import STAGES
from tests.cli.in_process import Called, ftcli

pytestmark = pytest.mark.usefixtures("toy_stages")


def judge(run: Path, *arguments: str) -> Called:
    return ftcli("judge", "--run", run, "--in-process", *arguments)


@pytest.mark.parametrize("code", [6, 7])
def test_a_stage_prints_its_report_then_the_verdict_fresh_and_cached(tmp_path: Path, code: int) -> None:
    run = tmp_path / "run"
    first, again = (judge(run, "--verdict", str(code)) for _ in range(2))
    for called, decision in ((first, "run (first time)"), (again, "cached")):
        assert called.code == code
        assert called.err.splitlines()[:2] == [f"judge: {decision}", f"verdict {code}"]
        assert called.err.splitlines()[-2:] == ["error: judge: GATE: it is so", "hint: read it"]
        assert (Path(called.out.strip()) / "report.html").is_file(), "scripts find the report, whatever the verdict"
    assert json.loads((run / "run.json").read_text())["order"] == ["judge"]
    as_json = judge(run, "--verdict", str(code), "--json")
    assert as_json.code == code
    assert json.loads(as_json.out)["facts"]["gate"]["exit_code"] == code


def test_a_gate_that_passed_ends_with_0(tmp_path: Path) -> None:
    called = judge(tmp_path / "run", "--verdict", "0")
    assert called.code == 0
    assert "error" not in called.err


def test_a_recipe_ends_at_the_gate_and_prints_what_is_done(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "stages:\n  - use: make\n  - use: judge\n    with:\n      gate: [{metric: rougeL, max_drop: 0.01}]\n"
        "  - use: make\n    id: later\n"
    )
    for decisions in (["make: run (first time)", "judge: run (first time)"], ["make: cached", "judge: cached"]):
        called = ftcli("run", recipe, "--run", tmp_path / "run", "--in-process")
        assert called.code == 6
        assert [line for line in called.err.splitlines() if line.startswith(("make", "judge", "later"))] == decisions
        assert called.err.splitlines()[-2:] == ["error: judge: GATE: it is so", "hint: read it"]
        assert "verdict 6" in called.out
        assert [line.split()[0] for line in called.out.splitlines()[:3]] == ["stage", "make", "judge"]
    value = json.loads(ftcli("run", recipe, "--run", tmp_path / "run", "--in-process", "--json").out)
    assert [item["id"] for item in value] == ["make", "judge"]
    passed = ftcli("run", recipe, "--run", tmp_path / "run", "--in-process", "--set", "judge.verdict=0")
    assert passed.code == 0
    assert "later: run (first time)" in passed.err


# ---- planning


def test_power_needs_no_run_no_inputs_and_leaves_nothing(tmp_path: Path) -> None:
    called = judge(tmp_path / "run", "--power", "0.1")
    assert called.code == 2
    assert "--power takes none of --in-process: it measures nothing" in called.err
    called = ftcli("judge", "--run", tmp_path / "run", "--power", "0.1")
    assert (called.code, called.out, called.err) == (0, "0.1: 7 rows\n", "")
    assert not (tmp_path / "run").exists()


def test_power_with_options_that_would_do_nothing_or_a_text_that_is_no_size_is_refused() -> None:
    called = ftcli("judge", "--power", "0.1", "--verdict", "0", "--force")
    assert called.code == 2
    assert "--power takes none of --force, --verdict: it measures nothing" in called.err
    wrong = ftcli("judge", "--power", "none")
    assert (wrong.code, wrong.err.splitlines()[0]) == (2, "error: --power none: a size is needed")


@pytest.mark.parametrize("name", STAGES)
def test_only_stages_that_can_plan_have_the_option(name: str) -> None:
    stage: Stage[object] = load_stage(STAGES[name][0])  # type: ignore[type-var]
    assert ("--power EFFECT" in ftcli(name, "--help").out) == (stage.plan is not None)
