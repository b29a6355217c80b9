"""The oracle is PEFT's own forward and autograd's gradients of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from ftcli.models.low_rank import lean_lora
from ftcli.models.quantize import keep_4bit_trainable


class Net(nn.Module):
    """Two linear layers, with the input of the second shared by nothing else."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16, bias=bias)
        self.second = nn.Linear(16, 8, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], **options}
    model = get_peft_model(Net().to(dtype), LoraConfig(**options))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)  # B starts at 0, which would hide errors
    return model


def outputs_and_gradients(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    out = model(x)
    (out.float() ** 2).sum().backward()
    assert x.grad is not None
    grads = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return out.detach(), {**grads, "input": x.grad}


def compare(model: Any, x: torch.Tensor, tolerance: float) -> None:
    expected, expected_grads = outputs_and_gradients(model, x)
    with torch.no_grad():
        silent = model(x)
    lean_lora(model)
    found, grads = outputs_and_gradients(model, x)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert grads.keys() == expected_grads.keys()
    assert "base_model.model.first.lora_A.default.weight" in grads
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=tolerance, atol=tolerance * 10, msg=name)
        assert grad.dtype == expected_grads[name].dtype
    with torch.no_grad():
        torch.testing.assert_close(model(x), silent, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 5, 12)])
def test_outputs_and_gradients_are_pefts(shape: tuple[int, ...]) -> None:
    compare(adapted(), torch.randn(*shape, generator=torch.Generator().manual_seed(1)), 1e-5)


def test_in_double_precision_nothing_but_rounding_differs() -> None:
    model = adapted(torch.float64, target_modules=["first", "second"]).double()
    compare(model, torch.randn(3, 12, dtype=torch.float64), 1e-12)


def test_in_bfloat16_it_computes_in_bfloat16_and_gives_float32_gradients() -> None:
    model = adapted(torch.bfloat16)
    assert model.base_model.model.first.lora_A.default.weight.dtype is torch.float32
    compare(model, torch.randn(6, 12, dtype=torch.bfloat16), 0.05)


def test_under_autocast_the_output_is_bfloat16() -> None:
    model = adapted()
    lean_lora(model)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(4, 12))
    assert out.dtype is torch.bfloat16
    out.float().sum().backward()
    assert model.base_model.model.second.lora_B.default.weight.grad.dtype is torch.float32


def test_pefts_own_forward_is_kept_where_there_is_more_than_plain_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 12)
    dropped = adapted(lora_dropout=0.5).train()
    torch.manual_seed(3)
    expected = dropped(x)
    lean_lora(dropped)
    torch.manual_seed(3)
    torch.testing.assert_close(dropped(x), expected)
    compare(adapted(lora_dropout=0.5).eval(), x, 1e-5)
    compare(adapted(use_dora=True), x, 1e-5)
    compare(adapted(lora_bias=True), x, 1e-5)


def test_switched_off_merged_and_exchanged_adapters_are_respected() -> None:
    model, x = adapted(), torch.randn(3, 12)
    lean_lora(model)
    with torch.no_grad():
        own = model(x)
        with model.disable_adapter():
            bare = model(x)
        torch.testing.assert_close(
            bare, model.base_model.model.second.base_layer(torch.tanh(model.base_model.model.first.base_layer(x)))
        )
        model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules=["first"]))
        model.set_adapter("other")
        torch.testing.assert_close(model(x), bare)  # a new adapter is 0, and second has none of that name
        model.set_adapter("default")
        torch.testing.assert_close(model(x), own)
        model.merge_adapter()
        torch.testing.assert_close(model(x), own, rtol=1e-4, atol=1e-5)


def test_two_active_adapters_add_up_as_in_peft() -> None:
    model, x = adapted(), torch.randn(3, 12)
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules=["first", "second"]))
    nn.init.normal_(model.base_model.model.first.lora_B["other"].weight)
    model.base_model.set_adapter(["default", "other"])
    expected = model(x)
    lean_lora(model)
    torch.testing.assert_close(model(x), expected)


def test_on_4_bit_layers() -> None:
    import bitsandbytes as bnb

    torch.manual_seed(0)
    layer = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
    net = nn.Sequential(layer)
    keep_4bit_trainable(net)
    net.is_loaded_in_4bit = True
    model = get_peft_model(net, LoraConfig(r=4, lora_alpha=4, target_modules=["0"]))
    nn.init.normal_(model.base_model.model[0].lora_B.default.weight, std=0.3)
    x = torch.randn(5, 64)
    expected, expected_grads = outputs_and_gradients(model, x)
    lean_lora(model)
    found, grads = outputs_and_gradients(model, x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("rows", [3, 200])
def test_without_gradient_the_bits_are_those_of_a_pass_with_gradient(rows: int) -> None:
    model = adapted(init_lora_weights=False).bfloat16()
    lean_lora(model)
    x = torch.randn(rows, 12).bfloat16()
    with_gradient = model(x)
    assert with_gradient.requires_grad
    with torch.no_grad():
        assert torch.equal(model(x), with_gradient)
    with torch.inference_mode():
        assert torch.equal(model(x), with_gradient)
