from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from ftcli.core.errors import UsageError
from ftcli.training.adapters import add_lora


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)


def lora(model: PreTrainedModel, *targets: str) -> PeftModel:
    return add_lora(model, r=4, alpha=8, dropout=0.0, target_modules=targets)


def test_all_linear_takes_every_layer_but_the_head(model: PreTrainedModel) -> None:
    adapted = lora(model, "all-linear")
    names = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_only_adapters_train_and_in_float32(model: PreTrainedModel) -> None:
    trained = {name: weight for name, weight in lora(model, "q_proj").named_parameters() if weight.requires_grad}
    assert len(trained) == 4  # A and B in each of two layers
    assert all("lora_" in name and ".default." in name for name in trained)
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    # A is [r, in], B is [out, r]; q_proj is 64 x 64
    assert sum(weight.numel() for weight in trained.values()) == 2 * (4 * 64 + 64 * 4)


@pytest.mark.parametrize("targets", [("query",), ("q_proj", "query"), ("lm_head",), ("embed_tokens",)])
def test_a_target_without_a_layer_lists_those_that_exist(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=targets[-1]) as raised:
        lora(model, *targets)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in raised.value.hint
