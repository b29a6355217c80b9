from __future__ import annotations

from typing import Any

import pytest

from ftcli.core.config import parse, semantic
from ftcli.stages.dpo.config import DpoConfig, leaner


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"micro_batch_size": 3}, "global_batch_size 16 is no multiple of micro_batch_size 3"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "label_smoothing is for loss_type sigmoid; ipo has none"),
        ({"label_smoothing": 0.5}, "less than 0.5"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 2}, "constant has no warm-up"),
        ({"method": "full", "lora_r": 8}, "lora_r: method full trains all weights and makes no adapter"),
        ({"beta": 0}, "beta: input should be greater than 0"),
        ({"loss_type": "kto"}, "loss_type"),
        ({"label_smooting": 0.1}, "unknown key label_smooting"),
    ],
)
def test_settings_that_contradict_each_other_are_named(values: dict[str, Any], message: str) -> None:
    config, problems = parse(DpoConfig, values)
    assert config is None
    assert message in problems[0].message


def test_memory_and_speed_are_no_part_of_the_fingerprint() -> None:
    config = DpoConfig(micro_batch_size=2, gradient_checkpointing=True, save_steps=5, beta=0.2)
    assert semantic(config) == {"beta": 0.2}


def test_after_memory_ran_out_micro_batches_are_halved_and_then_checkpointed() -> None:
    config, text = leaner(DpoConfig(global_batch_size=12), {"micro_batch_size": 12}) or (None, "")
    assert config
    assert config.micro_batch_size == 6
    assert "6 instead of 12" in text
    config, _ = leaner(config, {"micro_batch_size": 6}) or (None, "")
    assert config
    assert config.micro_batch_size == 3
    config, text = leaner(config, {"micro_batch_size": 1, "gradient_checkpointing": False}) or (None, "")
    assert config
    assert config.gradient_checkpointing
    assert "gradient_checkpointing" in text
    assert leaner(config, {"micro_batch_size": 1, "gradient_checkpointing": True}) is None
    assert leaner(config, {}) is None
