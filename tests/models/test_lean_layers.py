"""Layers with a backward pass of our own: the oracle is transformers' and PyTorch's own layer, with autograd's gradients."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from ftcli.models.attention import plain_attention
from ftcli.models.gated import lean_gates
from ftcli.models.norms import lean_norms


def outputs_and_gradients(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    out = layer(x)
    torch.manual_seed(3)
    out.backward(torch.randn_like(out))
    assert x.grad is not None
    return [out.detach(), x.grad, *(weight.grad for weight in layer.parameters() if weight.grad is not None)]


def compare(plain: nn.Module, lean: nn.Module, x: torch.Tensor, tolerance: float) -> None:
    for theirs, ours in zip(outputs_and_gradients(plain, x), outputs_and_gradients(lean, x), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


FORMATS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=str)


@FORMATS
@pytest.mark.parametrize("is_trained", [True, False])
def test_a_norm_has_the_same_output_and_gradients(is_trained: bool, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    plain = LlamaRMSNorm(48)
    nn.init.normal_(plain.weight)
    plain = plain.to(dtype).requires_grad_(is_trained)
    lean = copy.deepcopy(plain)
    assert lean_norms(lean) == 1
    compare(plain, lean, torch.randn(2, 7, 48, dtype=dtype), tolerance)


def test_a_norm_of_another_format_than_its_input_is_left_to_the_model() -> None:
    lean = LlamaRMSNorm(8)
    lean_norms(lean)
    assert lean(torch.randn(2, 8, dtype=torch.bfloat16)).dtype is torch.float32  # as transformers computes it


def test_a_norm_that_does_more_is_left_alone() -> None:
    norm = Gemma2RMSNorm(8)  # weights count one more than they say
    assert lean_norms(norm) == 0
    assert "forward" not in vars(norm)


def mlp(activation: str = "silu") -> Any:
    torch.manual_seed(0)
    return LlamaMLP(LlamaConfig(hidden_size=16, intermediate_size=40, num_attention_heads=2, hidden_act=activation))


@FORMATS
def test_a_gated_layer_has_the_same_output_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    plain = mlp().to(dtype)
    lean = copy.deepcopy(plain)
    assert lean_gates(lean) == 1
    compare(plain, lean, torch.randn(2, 7, 16, dtype=dtype), tolerance)


def test_a_layer_with_another_activation_is_left_alone() -> None:
    assert lean_gates(mlp("gelu")) == 0


@FORMATS
@pytest.mark.parametrize("groups", [6, 2, 1])
def test_attention_has_the_same_output_and_gradients(groups: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    shapes = [(2, 6, 9, 8), (2, groups, 9, 8), (2, groups, 9, 8)]
    seen = torch.ones(9, 9, dtype=torch.bool).tril()
    found = []
    for own in (True, False):
        torch.manual_seed(1)
        q, k, v = (torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes)
        if own:
            out = plain_attention(q, k, v, seen, 0.3, 0.0)
        else:
            out = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.3, enable_gqa=True)
        torch.manual_seed(2)
        out.backward(torch.randn_like(out))
        found.append((out.detach(), q.grad, k.grad, v.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_dropped_attention_is_a_scaled_part_of_the_weights() -> None:
    q = k = torch.zeros(1, 1, 400, 4)
    v = torch.ones(1, 1, 400, 4)
    out = plain_attention(q, k, v, torch.ones(400, 400, dtype=torch.bool), 1.0, 0.5)
    assert float(out.std()) > 0
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)  # kept weights count double


def test_every_layer_of_a_llama_is_found(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert (lean_norms(model), lean_gates(model)) == (5, 2)  # two layers with two norms each, and the last norm
