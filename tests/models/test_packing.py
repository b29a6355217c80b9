"""The oracle is the same model on each row alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ftcli.models import packing
from ftcli.models.packing import enable_packing, pack, takes_packed_rows, unpack, within

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LENGTHS = torch.tensor([11, 4, 1, 7])


def rows() -> torch.Tensor:
    return torch.randint(3, 60, (4, 12), generator=torch.Generator().manual_seed(0))


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


def alone(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    return [model(input_ids=ids[row : row + 1, :length]).logits[0] for row, length in enumerate(LENGTHS.tolist())]


def test_the_layout() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 0, 0]])
    packed = pack(ids, torch.tensor([3, 1]))
    assert packed["input_ids"].tolist() == [[5, 6, 7, 8]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 0]]
    assert packed["cu_seq_lens_q"].tolist() == [0, 3, 4]
    assert packed["max_length_q"] == 3
    assert within(3, torch.tensor([3, 1])).tolist() == [[True] * 3, [True, False, False]]
    back = unpack(torch.tensor([[5.0], [6.0], [7.0], [8.0]]), torch.tensor([3, 1]), 4)
    assert back[..., 0].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]


MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "mistral with a window of 3": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=3)),
}


@pytest.mark.parametrize("short_row_tokens", [0, 256], ids=["fused", "plain"])
@pytest.mark.parametrize("name", MODELS)
def test_packed_rows_are_computed_as_each_row_alone(
    name: str, short_row_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "SHORT_ROW_TOKENS", short_row_tokens)
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    ids = rows()
    expected = alone(model, ids)
    assert enable_packing(model)
    found = model(**pack(ids, LENGTHS), use_cache=False).logits[0].split(LENGTHS.tolist())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("short_row_tokens", [0, 256], ids=["fused", "plain"])
def test_gradients_are_those_of_the_rows_alone(short_row_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHORT_ROW_TOKENS", short_row_tokens)
    model, ids = llama(), rows()
    sum((one**2).sum() for one in alone(model, ids)).backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    assert enable_packing(model)
    (model(**pack(ids, LENGTHS), use_cache=False).logits ** 2).sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_row_does_not_feel_its_neighbours() -> None:
    model, ids = llama(), rows()
    assert enable_packing(model)
    other = ids.clone()
    other[0] = (other[0] + 7) % 50 + 3
    first, second = (
        model(**pack(one, LENGTHS), use_cache=False).logits[0].split(LENGTHS.tolist())[1:] for one in (ids, other)
    )
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_plain_and_left_padded_calls_and_generation_stay_as_they_were() -> None:
    model, ids = llama(), rows()
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]
    generated = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert enable_packing(model)
    found = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]
    torch.testing.assert_close(found, expected)
    again = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(again, generated)


def test_models_that_mix_neighbours_are_found_and_left_as_they_were() -> None:
    torch.manual_seed(0)
    mamba = MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4))
    soft = Gemma2ForCausalLM(
        Gemma2Config(**SMALL, attn_logit_softcapping=0.01, initializer_range=1.0, attn_implementation="eager")
    )
    for model in (mamba, soft):
        usual = model.config._attn_implementation
        assert not enable_packing(model)
        assert not takes_packed_rows(model)
        assert model.config._attn_implementation == usual


def test_the_tiny_model_takes_packed_rows_and_keeps_its_mode(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).train()
    assert enable_packing(model)
    assert takes_packed_rows(model)
    assert takes_packed_rows(model.base_model)
    assert model.training
