from __future__ import annotations

from typing import Any

import pytest

from ftcli.core.config import parse, semantic
from ftcli.stages.ppo.config import PpoConfig


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
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    config, problems = parse(PpoConfig, settings)
    assert config is None
    assert message in problems[0].message


@pytest.mark.parametrize("name", ["top_p", "top_k", "kl_estimator", "lora_dropout", "min_new_tokens"])
def test_what_would_make_the_maths_wrong_is_no_setting(name: str) -> None:
    _, problems = parse(PpoConfig, {name: 1})
    assert problems[0].message == f"unknown key {name}"


def test_settings_that_only_change_speed_are_not_in_the_fingerprint() -> None:
    config = PpoConfig(micro_batch_size=3, rollout_micro_batch_size=5, save_steps=9, kl_coef=0.1)
    assert semantic(config) == {"kl_coef": 0.1}
