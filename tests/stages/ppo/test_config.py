from __future__ import annotations

from typing import Any

import pytest

from ftcli.core.config import parse, semantic
from ftcli.stages.ppo.config import PpoConfig, leaner


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rollout_batch_size": 30, "num_mini_batches": 4},
            "rollout_batch_size 30 is no multiple of num_mini_batches 4",
        ),
        (
            {"total_episodes": 100, "rollout_batch_size": 64},
            "total_episodes 100 is no multiple of rollout_batch_size 64",
        ),
        ({"temperature": 0}, "temperature"),
        ({"value_init": "rewards"}, "value_init"),
        ({"kl_target": 6.0, "kl_coef": 0}, "kl_target adapts kl_coef by factors, so kl_coef must be above 0"),
        ({"method": "full", "lora_r": 8}, "lora_r: method full trains all weights and makes no adapter"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    config, problems = parse(PpoConfig, settings)
    assert config is None
    assert message in problems[0].message


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("top_p", "cuts the distribution"),
        ("top_k", "cuts the distribution"),
        ("min_new_tokens", "cuts the distribution"),
        ("kl_estimator", "k3 in the reward pushes"),
        ("lora_dropout", "with dropout"),
    ],
)
def test_what_would_make_the_maths_wrong_is_refused_with_the_reason(name: str, why: str) -> None:
    _, problems = parse(PpoConfig, {name: 1})
    assert problems[0].message.startswith(f"{name} is not offered: ")
    assert why in problems[0].message


@pytest.mark.parametrize(
    ("facts", "steps"),
    [
        (
            {"gradient_checkpointing": False},
            ["micro_batch_size 1", "rollout_micro_batch_size 1", "gradient_checkpointing True", None],
        ),
        ({"gradient_checkpointing": True}, ["micro_batch_size 1", "rollout_micro_batch_size 1", None]),
    ],
)
def test_after_memory_ran_out_less_is_computed_at_once(facts: dict[str, Any], steps: list[str | None]) -> None:
    config: PpoConfig | None = PpoConfig(micro_batch_size=2, rollout_micro_batch_size=2)
    for expected in steps:
        assert config is not None
        used = config.gradient_checkpointing or facts["gradient_checkpointing"]
        found = leaner(config, {"gradient_checkpointing": used})
        assert (found and found[1]) == (expected and f"with {expected}")
        config = found[0] if found else None


def test_memory_that_ran_out_before_training_is_not_tried_again() -> None:
    assert leaner(PpoConfig(), {}) is None
    assert leaner(PpoConfig(gradient_checkpointing=True), {"train/asked_in_held_out": 0}) is None


def test_settings_that_only_change_speed_are_not_in_the_fingerprint() -> None:
    config = PpoConfig(micro_batch_size=3, rollout_micro_batch_size=5, save_steps=9, kl_coef=0.1)
    assert semantic(config) == {"kl_coef": 0.1}
