from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, model_validator

from ftcli.core.config import ExecOnly, Problem, StageConfig, nearest, non_default, parse, semantic


class TrainConfig(StageConfig):
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak rate."""
    lora_r: int = 16
    """Rank."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format."""
    names: tuple[str, ...] = ("a", "b")
    """Some names."""
    limit: int | None = Field(default=None, ge=1)
    """Rows."""
    micro_batch_size: Annotated[int, ExecOnly()] = 1
    """Rows at once."""
    batch_size: Annotated[int, ExecOnly(), Field(ge=1)] = 8
    """The mark may stand beside others."""

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.limit == 13:
            raise ValueError("13 rows bring bad luck")
        return self


class NeedyConfig(StageConfig):
    path: str
    """No default."""


def problems(**values: object) -> list[Problem]:
    config, found = parse(TrainConfig, values)
    assert (config is None) == bool(found)
    return found


def test_defaults_and_fields_that_change_speed_only_do_not_count() -> None:
    assert semantic(TrainConfig()) == {}
    assert semantic(TrainConfig(learning_rate=2e-5, lora_r=16, micro_batch_size=4, batch_size=2)) == {}
    changed = TrainConfig(lora_r=8, micro_batch_size=4, names=["x"], seed=7)
    assert semantic(changed) == {"seed": 7, "lora_r": 8, "names": ["x"]}
    assert non_default(changed) == {"seed": 7, "lora_r": 8, "names": ["x"], "micro_batch_size": 4}


def test_a_field_without_default_always_counts() -> None:
    assert semantic(NeedyConfig(path="x")) == {"path": "x"}


def test_all_problems_are_found_at_once() -> None:
    found = problems(learning_rat=1e-4, lora_r="many", precision="bf17", limit=0)
    assert {problem.key for problem in found} == {"learning_rat", "lora_r", "precision", "limit"}


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"learning_rat": 1}, "unknown key learning_rat", "did you mean learning_rate?"),
        ({"lr": 1}, "unknown key lr", "did you mean learning_rate?"),
        ({"rank": 1}, "unknown key rank", "did you mean lora_r?"),
        (
            {"per_device_train_batch_size": 1},
            "unknown key per_device_train_batch_size",
            "did you mean micro_batch_size?",
        ),
        ({"zebra": 1}, "unknown key zebra", ""),
        (
            {"precision": "bf17"},
            "precision: input should be 'auto', 'bf16' or 'fp32', got 'bf17'",
            "did you mean bf16?",
        ),
        ({"limit": 0}, "limit: input should be greater than or equal to 1, got 0", ""),
        ({"learning_rate": -1}, "learning_rate: input should be greater than 0, got -1", ""),
        ({"learning_rate": float("nan")}, "learning_rate: input should be a finite number, got nan", ""),
        ({"names": [1]}, "names.0: input should be a valid string, got 1", ""),
        ({"limit": 13}, "13 rows bring bad luck", ""),
    ],
)
def test_a_problem_says_what_was_given_and_what_was_expected(
    values: dict[str, object], message: str, hint: str
) -> None:
    (problem,) = problems(**values)
    assert problem.message == message
    assert problem.hint == hint


def test_a_missing_value_is_named() -> None:
    config, (problem,) = parse(NeedyConfig, {})
    assert config is None
    assert problem == Problem("path", "path must be given")


def test_numbers_written_as_text_become_numbers() -> None:
    config, found = parse(TrainConfig, {"learning_rate": "2e-4"})
    assert found == []
    assert config is not None
    assert config.learning_rate == 2e-4


def test_nearest_prefers_the_name_that_other_tools_use_if_it_is_known() -> None:
    assert nearest("epochs", ["num_train_epochs", "epoch_size"]) == "did you mean num_train_epochs?"
    assert nearest("epochs", ["epoch_size"]) == "did you mean epoch_size?"
    assert nearest("epochs", ["seed"]) == ""


class Part(BaseModel, extra="forbid"):
    size: int
    colour: Literal["red", "blue"] = "red"


class WholeConfig(StageConfig):
    parts: tuple[Part, ...] = ()
    """Parts."""


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (
            {"size": 1, "color": "red"},
            Problem("parts", "parts.1: unknown key color", "did you mean colour?", (1, "color")),
        ),
        ({"size": 1, "zzz": 1}, Problem("parts", "parts.1: unknown key zzz", "it has size, colour", (1, "zzz"))),
        ({}, Problem("parts", "parts.1.size must be given", "", (1, "size"))),
        (
            {"size": 1, "colour": "blu"},
            Problem(
                "parts",
                "parts.1.colour: input should be 'red' or 'blue', got 'blu'",
                "did you mean blue?",
                (1, "colour"),
            ),
        ),
    ],
)
def test_a_problem_inside_a_value_is_named_with_its_place(part: dict[str, object], problem: Problem) -> None:
    assert parse(WholeConfig, {"parts": [{"size": 1}, part]}) == (None, [problem])
