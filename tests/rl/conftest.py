"""Reference numbers and tiny models for the tests of the RL library."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from ftcli.models.heads import ScalarHead
from ftcli.rl.rewards import Score, Scores
from ftcli.rl.roles import FullRoles
from ftcli.rl.sequences import Exchange

PAD, EOS = 0, 1


@pytest.fixture(scope="session")
def vectors() -> dict[str, dict[str, Any]]:
    """Small float64 cases derived outside the package, with closed forms asserted where they were made; lists of numbers
    are tensors."""
    raw = json.loads((Path(__file__).parent / "rlhf_vectors.json").read_text())
    return {name: {key: _tensor(value) for key, value in case.items()} for name, case in raw.items()}


def _tensor(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value


def scored(function: Callable[[Sequence[Exchange]], list[float]]) -> Score:
    """``function`` as the only source of scores."""
    return lambda exchanges: _one_source(function(exchanges))


def _one_source(values: list[float]) -> Scores:
    return Scores(values, {"rule": list(values)})


def tiny_llama(seed: int = 0, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def full_roles(seed: int = 0, dtype: torch.dtype = torch.float32) -> FullRoles:
    policy = tiny_llama(seed, dtype)
    return FullRoles(policy, copy.deepcopy(policy), copy.deepcopy(policy), ScalarHead(64).to(dtype))


def tiny_adapter(
    dtype: torch.dtype = torch.float32, *, seed: int = 0, trained: bool = True, dropout: float = 0.0
) -> Any:
    """A `PeftModel` whose adapter ``default`` is fresh, or, if ``trained``, random and so different from the base."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=dropout)
    model = get_peft_model(tiny_llama(dtype=dtype), config)
    if trained:
        generator = torch.Generator().manual_seed(seed)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn(weight.shape, generator=generator).to(weight.dtype) * 0.1
    return model


def random_exchanges(count: int, seed: int = 0, longest: int = 9) -> list[Exchange]:
    """Prompts of 2-6 tokens and responses of 1 to ``longest``; about half end with the end-of-turn token."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    found = []
    for _ in range(count):
        prompt = torch.randint(2, 32, (draw(2, 7),), generator=generator).tolist()
        response = torch.randint(2, 32, (draw(1, longest + 1),), generator=generator).tolist()
        ended = draw(0, 2) == 1
        found.append(Exchange(prompt, [*response[:-1], EOS] if ended else response, ended))
    return found
