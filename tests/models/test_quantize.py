from __future__ import annotations

from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.models.load import load_base
from ftcli.models.quantize import count_weights, nf4_config
from ftcli.training.adapters import add_lora

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("avx512_bf16"), reason="only processors with AVX512-BF16 repack 4-bit weights"
)


def gradient_norms(model: torch.nn.Module) -> tuple[float, float]:
    """The gradient norm of the adapters before and after one evaluation."""
    adapted = add_lora(model, r=4, alpha=8, dropout=0.0, target_modules=["all-linear"])
    ids = torch.arange(3, 35)[None]
    norms = []
    for _ in range(2):
        adapted.train()
        adapted.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            adapted(input_ids=ids, labels=ids).loss.backward()
        gradients = [weight.grad for weight in adapted.parameters() if weight.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        adapted.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            adapted(input_ids=ids)
    return norms[0], norms[1]


@needs_packing
def test_an_evaluation_leaves_gradients_through_4_bit_layers_whole(tiny_model: Path) -> None:
    before, after = gradient_norms(load_base(tiny_model, torch.bfloat16, CPU, "nf4"))
    assert before > 0
    assert after == before


@needs_packing
def test_bitsandbytes_still_needs_the_guard(tiny_model: Path) -> None:
    config = nf4_config(torch.bfloat16)
    unguarded = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16, quantization_config=config)
    before, after = gradient_norms(unguarded)
    assert after < 0.9 * before


@pytest.mark.parametrize(("double_quant", "constants_in_bytes"), [(True, torch.uint8), (False, torch.float32)])
def test_linear_layers_are_nf4_and_the_head_is_not(
    tiny_model: Path, double_quant: bool, constants_in_bytes: torch.dtype
) -> None:
    model = load_base(tiny_model, torch.bfloat16, CPU, "nf4", double_quant)
    layer = model.model.layers[0].mlp.up_proj
    assert isinstance(layer, bnb.nn.Linear4bit)
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.absmax.dtype is constants_in_bytes
    assert layer.weight.numel() * layer.weight.element_size() == 64 * 128 / 2
    assert not isinstance(model.lm_head, bnb.nn.Linear4bit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_weights_are_stored_in_the_format_of_the_others_as_fsdp_wants(
    dtype: torch.dtype, tiny_model: Path
) -> None:
    model = load_base(tiny_model, dtype, torch.device("cpu"), "nf4")
    assert {weight.dtype for weight in model.parameters()} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_weights_count_as_what_they_stand_for(dtype: torch.dtype, tiny_model: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = sum(weight.numel() for weight in whole.parameters())
    packed = load_base(tiny_model, dtype, CPU, "nf4")
    assert count_weights(packed.parameters()) == count_weights(whole.parameters()) == expected
    assert sum(weight.numel() for weight in packed.parameters()) < expected
