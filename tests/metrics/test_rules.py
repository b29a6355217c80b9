from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field, ValidationError

from ftcli.cli import flags
from ftcli.core.config import StageConfig, non_default, parse, semantic
from ftcli.core.errors import UsageError
from ftcli.core.stage import Stage
from ftcli.metrics.rules import Rule, check_expression, problems_of, split_name


class GateConfig(StageConfig):
    gate: tuple[Rule, ...] = ()
    """Rules."""
    others: tuple[int, ...] = Field(default=(), max_length=2)
    """Numbers."""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "a rule has either a metric or an expr"),
        ({"metric": "rougeL", "expr": "rougeL.delta < 0"}, "a rule has either a metric or an expr"),
        ({"metric": "rogueL"}, "unknown metric rogueL; did you mean rougeL?"),
        ({"metric": "zzz"}, "unknown metric zzz; known: perplexity,"),
        ({"metric": "rougeL", "max_drop": 0.1, "max": 1}, "max_drop and max are two limits: write two rules"),
        ({"metric": "rougeL", "max": 0.1, "min": 0}, "max and min are two limits: write two rules"),
        ({"metric": "hit_max_rate", "max": 5}, "hit_max_rate is a share from 0 to 1, so 5 % is 0.05"),
        ({"metric": "exact_match", "max_drop": 2}, "max_drop 2: exact_match is a share from 0 to 1"),
        ({"metric": "rougeL", "max_drop": 5}, "max_drop 5: rougeL is a share from 0 to 1"),
        ({"metric": "repetition_rate", "max": 10}, "max 10: repetition_rate is a share from 0 to 1"),
        ({"metric": "mean_length"}, "neither direction of mean_length is worse by itself: give max or min"),
        ({"metric": "mean_length", "max_ratio": 2}, "neither direction of mean_length is worse by itself"),
        (
            {"metric": "rougeL", "max": 1, "against": "lora"},
            "max limits the value itself, which is compared with nothing",
        ),
        ({"metric": "rougeL", "model": "lora", "against": "lora"}, "lora is to be compared with itself"),
        ({"expr": "rougeL.delta < 0", "max": 1}, "an expr decides by itself: leave out max"),
        ({"expr": "rougeL.delta < 0", "mode": "point"}, "an expr decides by itself: leave out mode"),
        ({"expr": "rougeL.delta <"}, "at its end: invalid syntax"),
        ({"expr": "rogueL.delta < 0"}, "unknown metric rogueL; did you mean rougeL?"),
        ({"metric": "rougeL", "max_drop": -0.1}, "greater than or equal to 0"),
        ({"metric": "rougeL", "max_ratio": 0.9}, "greater than or equal to 1"),
        ({"metric": "rougeL", "max_drop": float("nan")}, "finite number"),
        ({"metric": "rougeL", "min_n": 1}, "greater than or equal to 2"),
        ({"metric": "rougeL", "mode": "proved"}, "'proven', 'non-inferior' or 'point'"),
        ({"metric": "rougeL", "severity": "medium"}, "'hard' or 'soft'"),
        ({"metric": "rougeL", "max_dorp": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Rule(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"metric": "rougeL", "max_drop": 0.01}, "rougeL max_drop 0.01"),
        ({"metric": "mean_length", "max": 200}, "mean_length max 200"),
        ({"metric": "general.nll", "against": "lora", "model": "ppo"}, "general.nll not worse against lora"),
        ({"metric": "custom.brevity", "mode": "point"}, "custom.brevity not worse (point)"),
        ({"expr": "lora.rougeL.delta < -0.01"}, "lora.rougeL.delta < -0.01"),
    ],
)
def test_a_rule_reads_like_what_it_says_and_keeps_only_that(values: dict[str, Any], text: str) -> None:
    rule = Rule(**values)
    assert str(rule) == text
    assert rule.model_dump() == values
    assert Rule.model_validate(json.loads(rule.model_dump_json())) == rule


def test_names_with_dots_are_left_to_be_known_later() -> None:
    check_expression("general.nll.delta > 0.1 and judge.llm.value < 0.4 or lora.rougeL.p < 0.05")
    with pytest.raises(ValueError, match="unknown metric hit_max_rat; did you mean hit_max_rate"):
        check_expression("0 < hit_max_rat.value")


METRICS = {"rougeL", "general.nll", "lora.trick"}
LABELS = ["base", "lora", "ppo"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rougeL.delta", ("", "rougeL", "delta")),
        ("general.nll.ci_low", ("", "general.nll", "ci_low")),
        ("lora.rougeL.delta", ("lora", "rougeL", "delta")),
        ("ppo.general.nll.p", ("ppo", "general.nll", "p")),
        ("lora.trick.value", ("", "lora.trick", "value")),
    ],
)
def test_a_name_is_taken_apart_with_a_metric_before_a_label(name: str, expected: tuple[str, str, str]) -> None:
    assert split_name(name, METRICS, LABELS) == expected


def test_what_a_rule_names_and_nobody_measured_is_said_with_the_nearest_name() -> None:
    rules = [
        Rule(metric="general.nl"),
        Rule(metric="rougeL", model="lara"),
        Rule(metric="rougeL", against="dpo"),
        Rule(expr="lora.rouge1.delta < 0"),
        Rule(expr="lroa.general.nll.delta < 0"),
        Rule(metric="rougeL", model="ppo", against="lora"),
    ]
    assert [problems_of(rule, METRICS, LABELS) for rule in rules] == [
        ["no metric general.nl was measured; did you mean general.nll?"],
        ["no model lara was measured; did you mean lora?"],
        ["no model dpo was measured; did you mean ppo?"],
        ["lora.rouge1.delta: no metric rouge1 was measured; did you mean rougeL?"],
        ["lroa.general.nll.delta: no model lroa was measured; did you mean lora?"],
        [],
    ]


# ---- as a setting


def test_rules_are_settings_that_go_through_json_and_count_in_the_fingerprint() -> None:
    config, _ = parse(GateConfig, {"gate": [{"metric": "rougeL", "max_drop": 0.01}]})
    assert config is not None
    said = {"gate": [{"metric": "rougeL", "max_drop": 0.01}]}
    assert semantic(config) == non_default(config) == said
    assert GateConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(
    ("rule", "message", "hint", "at"),
    [
        (
            {"metric": "rougeL", "max_dorp": 1},
            "gate.1: unknown key max_dorp",
            "did you mean max_drop?",
            (1, "max_dorp"),
        ),
        ({"metric": "rougeL", "zzz": 1}, "gate.1: unknown key zzz", "it has metric, model, against", (1, "zzz")),
        ({"metric": "rogueL"}, "gate.1.metric: unknown metric rogueL; did you mean rougeL?", "", (1, "metric")),
        ({"max": 1}, "gate.1: a rule has either a metric or an expr", "", (1,)),
        ({"metric": "rougeL", "max": "x"}, "gate.1.max: input should be a valid number", "", (1, "max")),
        (
            {"metric": "rougeL", "mode": "prooven"},
            "gate.1.mode: input should be 'proven', 'non-inferior' or 'point', got 'prooven'",
            "did you mean proven?",
            (1, "mode"),
        ),
        ("rougeL", "gate.1: a rule is a mapping such as {metric: rougeL, max_drop: 0.01}, not 'rougeL'", "", (1,)),
    ],
)
def test_a_problem_inside_a_rule_names_the_rule_and_its_key(
    rule: object, message: str, hint: str, at: tuple[object, ...]
) -> None:
    _, (problem,) = parse(GateConfig, {"gate": [{"metric": "rougeL"}, rule]})
    assert problem.message.startswith(message)
    assert problem.hint.startswith(hint)
    assert (problem.key, problem.at) == ("gate", at)


STAGE = Stage("gated", GateConfig, {}, {}, lambda ctx: None)


def by_flags(*gate: str) -> GateConfig:
    config = flags._config(STAGE, {"gate": list(gate), "others": None, "seed": None})
    assert isinstance(config, GateConfig)
    return config


def test_a_flag_takes_one_rule_a_list_of_rules_or_several_flags() -> None:
    drop, ratio = Rule(metric="rougeL", max_drop=0.01), Rule(metric="perplexity", max_ratio=1.05)
    assert by_flags("{metric: rougeL, max_drop: 0.01}").gate == (drop,)
    assert by_flags("{metric: rougeL, max_drop: 1e-2}", "{metric: perplexity, max_ratio: 1.05}").gate == (drop, ratio)
    assert by_flags("[{metric: rougeL, max_drop: 0.01}, {metric: perplexity, max_ratio: 1.05}]").gate == (drop, ratio)
    assert by_flags('{expr: "rougeL.delta < 0"}').gate == (Rule(expr="rougeL.delta < 0"),)
    assert by_flags("[]").gate == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{metric: rougeL, max_dorp: 1}", "--gate.0: unknown key max_dorp"),
        (
            "{metric: rougeL, max: 1, max: 2}",
            "--gate.0: a rule is a mapping such as {metric: rougeL, max_drop: 0.01}, not '{metric",
        ),
        (
            "{metric: rougeL",
            "--gate.0: a rule is a mapping such as {metric: rougeL, max_drop: 0.01}, not '{metric: rougeL'",
        ),
        ("rougeL", "--gate.0: a rule is a mapping such as {metric: rougeL, max_drop: 0.01}, not 'rougeL'"),
    ],
)
def test_a_flag_that_is_no_rule_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        by_flags(text)
    assert caught.value.message.startswith(message)
