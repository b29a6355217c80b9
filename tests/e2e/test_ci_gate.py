"""The example for CI: a script that ends with the gate's exit code and leaves what a CI system shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ftcli.metrics.gates import judge_gate
from ftcli.metrics.rules import Rule
from tests.pipeline.toy import ROOT

SCRIPT = ROOT / "docs" / "ci" / "eval-gate.sh"
WORKFLOW = ROOT / "docs" / "ci" / "eval-gate.yml"


def run_script(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    toy = f"{sys.executable} {ROOT / 'tests' / 'pipeline' / 'toy_ftcli.py'}"
    environment = {**os.environ, "FTCLI": toy, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", SCRIPT, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def recipe(folder: Path, verdict: int, fail: str = "no") -> Path:
    path = folder / "gate.yaml"
    path.write_text(
        f'stages:\n  - use: make\n    with: {{fail: "{fail}"}}\n  - use: judge\n    id: eval\n    with: {{verdict: {verdict}}}\n'
    )
    return path


@pytest.mark.parametrize("code", [0, 6, 7])
def test_the_script_ends_with_the_verdict_and_keeps_the_report(tmp_path: Path, code: int) -> None:
    called = run_script(tmp_path, recipe(tmp_path, code), "run")
    assert called.returncode == code, called.stderr
    assert sorted(path.name for path in (tmp_path / "gate").iterdir()) == ["report.html"]


def test_another_failure_keeps_its_code_and_shows_no_older_report(tmp_path: Path) -> None:
    assert run_script(tmp_path, recipe(tmp_path, 0), "run", "out").returncode == 0
    assert (tmp_path / "out" / "report.html").is_file()
    called = run_script(tmp_path, recipe(tmp_path, 0, "bad-data"), "run", "out")
    assert called.returncode == 65, called.stderr
    assert list((tmp_path / "out").iterdir()) == []
    assert run_script(tmp_path).returncode == 2


def test_the_workflow_is_yaml_and_calls_the_script_that_is_there() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    (called,) = [step["run"] for step in steps if "eval-gate.sh" in step.get("run", "")]
    assert SCRIPT.relative_to(ROOT).as_posix() in called
    assert os.access(SCRIPT, os.X_OK)
    assert [step["uses"].split("@")[0] for step in steps if step.get("if") == "always()"] == ["actions/upload-artifact"]


def test_the_rules_in_the_documentation_are_rules() -> None:
    text = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
    block = text.split("```yaml\n")[1].split("```")[0]
    settings = yaml.safe_load(block)[0]["with"]
    rules = [Rule(**rule) for rule in settings["gate"]] + [Rule(expr=text) for text in settings["fail_if"]]
    conditions = text.split("## Conditions")[1].split("\n    ", 1)[1].split("\n\n")[0].splitlines()
    rules += [Rule(expr=line.strip()) for line in conditions]
    assert len(rules) == 11
    assert judge_gate(rules, {"base": {}, "lora": {}, "ppo": {}}, baseline="base").exit_code == 7
