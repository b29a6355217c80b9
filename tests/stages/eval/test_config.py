from __future__ import annotations

import subprocess
import sys

import pytest

from ftcli.core.config import parse, semantic
from ftcli.core.stage import Kind
from ftcli.metrics.names import DEFAULT_FAMILIES, FAMILIES
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
        ({"stride": 1024}, "stride 1024 must be below max_length 1024"),
        ({"judge_url": "http://localhost:8000/v1"}, "judge_url and judge_model belong together"),
        ({"judge_model": "judge"}, "judge_url and judge_model belong together"),
        ({"suite": "none", "suite_limit": 8}, "suite_limit counts items of a suite, and suite is none"),
        ({"lm_eval_chat": False, "lm_eval_limit": 4}, "lm_eval_chat, lm_eval_limit: lm_eval names no task"),
        ({"lm_eval_shots": 0}, "lm_eval_shots: lm_eval names no task"),
        ({"fail_if": ["rougeL.delta <"]}, "fail_if"),
        ({"fail_if": ["rogueL.delta < 0"]}, "unknown metric rogueL; did you mean rougeL?"),
        ({"gate": [{"metric": "rogueL"}]}, "unknown metric rogueL; did you mean rougeL?"),
        ({"gate": [{"metric": "rougeL", "max_dorp": 0.1}]}, "max_dorp"),
    ],
)
def test_a_wrong_setting_is_one_problem_that_names_it(settings, message):
    config, problems = parse(EvalConfig, settings)
    assert config is None
    assert len(problems) == 1
    assert message in problems[0].message


def test_every_metric_that_needs_no_choice_is_measured_unless_told_otherwise():
    assert EvalConfig().metrics == DEFAULT_FAMILIES
    assert set(DEFAULT_FAMILIES) <= set(FAMILIES)
    assert {"perplexity", "rouge", "health"} <= set(DEFAULT_FAMILIES)


def test_what_only_changes_the_speed_is_no_part_of_the_result():
    assert semantic(EvalConfig(batch_size=3, use_cache=False, limit=5)) == {"limit": 5}


def test_a_gate_is_part_of_the_result_as_it_was_written():
    rule = {"metric": "rougeL", "max_drop": 0.01}
    assert semantic(EvalConfig(gate=(rule,), fail_if=("perplexity.ratio > 1.05",))) == {
        "gate": [rule],
        "fail_if": ["perplexity.ratio > 1.05"],
    }


def test_windows_of_a_text_overlap_by_half_unless_told_otherwise():
    assert EvalConfig(max_length=100).window_stride == 50
    assert EvalConfig(max_length=100, stride=99).window_stride == 99


def test_only_models_and_data_are_needed():
    assert [name for name, spec in EVAL.inputs.items() if spec.required] == ["models", "data"]
    assert EVAL.inputs["baseline"].kind is Kind.SOURCE
    assert EVAL.inputs["metric"].kind is Kind.FUNCTION
    assert EVAL.inputs["metric"].many


@pytest.mark.parametrize("module", ["ftcli.stages.eval.stage", "ftcli.stages.eval.tables"])
def test_help_and_tables_load_nothing_heavy(module: str):
    heavy = "torch transformers datasets evaluate peft matplotlib scipy numpy"
    code = f"import sys, {module}; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
