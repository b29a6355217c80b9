from __future__ import annotations

import pytest
from pydantic import ValidationError

from ftcli.core.config import parse, semantic
from ftcli.stages.sft.config import LoraConfig, QloraConfig, SftConfig


def test_a_micro_batch_must_divide_the_global_batch() -> None:
    with pytest.raises(ValidationError, match="global_batch_size 16 is no multiple of micro_batch_size 3"):
        SftConfig(micro_batch_size=3)


def test_a_constant_rate_cannot_warm_up() -> None:
    with pytest.raises(ValidationError, match="constant_with_warmup has"):
        SftConfig(lr_scheduler_type="constant", warmup_steps=0.1)


def test_speed_settings_do_not_change_the_fingerprint() -> None:
    quick = SftConfig(micro_batch_size=4, gradient_checkpointing=True, save_steps=7, logging_steps=3)
    assert semantic(quick) == {}
    assert semantic(SftConfig(eval_steps=5, max_length=64)) == {"eval_steps": 5, "max_length": 64}


def test_target_modules_are_read_from_a_list_or_a_line() -> None:
    assert LoraConfig(lora_target_modules="q_proj, v_proj").lora_target_modules == ("q_proj", "v_proj")
    assert LoraConfig(lora_target_modules=["q_proj"]).lora_target_modules == ("q_proj",)


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0), ("max_length", 1), ("global_batch_size", 0), ("eval_rows", -1), ("lora_dropout", 1.0)],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    config, problems = parse(QloraConfig, {name: value})
    assert config is None
    assert [problem.key for problem in problems] == [name]


def test_other_tools_names_are_understood_as_hints() -> None:
    _, problems = parse(QloraConfig, {"cutoff_len": 5, "lora_rank": 8, "warmup_ratio": 0.1})
    assert [problem.hint for problem in problems] == [
        "did you mean max_length?",
        "did you mean lora_r?",
        "did you mean warmup_steps?",
    ]
