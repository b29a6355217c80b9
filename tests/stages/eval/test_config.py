from __future__ import annotations

import subprocess
import sys

import pytest

from ftcli.core.config import parse, semantic
from ftcli.metrics.names import FAMILIES
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.stage import EVAL


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["rogue"]}, "metrics: unknown metric rogue; did you mean rouge?"),
        ({"metrics": ["rogue", "beu"]}, "unknown metric beu; did you mean bleu?"),
        ({"metrics": ["rougeL"]}, "it is part of rouge"),
        ({"metrics": []}, "name at least one"),
        ({"metrics": ["bleu", "bleu"]}, "named twice"),
        ({"generation_limit": 0}, "generation_limit"),
        ({"temperature": 0}, "temperature"),
        ({"split": "dev"}, "split"),
    ],
)
def test_a_wrong_setting_is_one_problem_that_names_it(settings, message):
    config, problems = parse(EvalConfig, settings)
    assert config is None
    assert len(problems) == 1
    assert message in problems[0].message


def test_all_metrics_are_measured_unless_told_otherwise():
    assert EvalConfig().metrics == FAMILIES


def test_the_batch_size_is_no_part_of_the_result():
    assert semantic(EvalConfig(batch_size=3, limit=5)) == {"limit": 5}


def test_the_stage_needs_no_reward_model():
    assert [name for name, spec in EVAL.inputs.items() if spec.required] == ["models", "data"]


@pytest.mark.parametrize("module", ["ftcli.stages.eval.stage", "ftcli.stages.eval.tables"])
def test_help_and_tables_load_nothing_heavy(module: str):
    heavy = "torch transformers datasets evaluate peft matplotlib scipy numpy"
    code = f"import sys, {module}; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
