from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig

from ftcli.models.dropout import disable_dropout

SMALL = {"vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = LlamaConfig(**SMALL, intermediate_size=128)
OPT = {**SMALL, "ffn_dim": 128, "word_embed_proj_dim": 64, "attention_dropout": 0.0, "dropout": 0.0}


def model(config: Any, lora_dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=lora_dropout, init_lora_weights=False)
    return get_peft_model(AutoModelForCausalLM.from_config(config), adapter)


@pytest.mark.parametrize(
    "made",
    [
        lambda: model(LLAMA, lora_dropout=0.3),
        lambda: model(LlamaConfig(**LLAMA.to_diff_dict() | {"attention_dropout": 0.3})),
        lambda: model(OPTConfig(**OPT | {"attention_dropout": 0.3})),
        lambda: model(OPTConfig(**OPT | {"dropout": 0.3})),
        lambda: model(OPTConfig(**OPT, layerdrop=0.5)),
    ],
    ids=["adapter", "attention", "OPT attention", "OPT layers", "OPT layerdrop"],
)
def test_after_it_two_passes_in_training_mode_are_equal(made: Any) -> None:
    found, ids = made().train(), torch.arange(2, 31)[None]

    def passes() -> list[torch.Tensor]:
        return [found(input_ids=ids).logits.detach() for _ in range(8)]

    assert not all(torch.equal(one, passes()[0]) for one in passes())
    assert disable_dropout(found)
    first, *others = passes()
    assert all(torch.equal(one, first) for one in others)
    assert not disable_dropout(found), "there is none left"
