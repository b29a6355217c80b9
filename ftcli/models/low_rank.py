"""A leaner forward and backward for LoRA layers (arXiv 2106.09685), with PEFT's modules and weights unchanged.

PEFT casts the input to float32, multiplies by A and by B, scales and adds: five passes over the activations and as many saved
tensors. Here the product is computed in the layer's own number format from copies of A and B (the float32 weights stay what
the optimizer sees, as under autocast), scaled and added in one matrix product, and only the input is kept for the backward pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class _Linear(torch.autograd.Function):
    """``x W^T + bias + scaling * (x A^T) B^T`` with x [M, K], a frozen W [N, K], A [R, K] and B [N, R] of any format.

    One function for both products: the gradient of x is then one sum, and the output is written once.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        narrow_a, narrow_b = a.to(x.dtype), b.to(x.dtype)
        low = x @ narrow_a.T  # [M, R]
        ctx.save_for_backward(x, weight, narrow_a, narrow_b, low)
        ctx.scaling, ctx.dtype = scaling, a.dtype
        return linear(x, weight, bias).addmm_(low, narrow_b.T, alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        through, grad_a, grad_b = _gradients(ctx, grad, x, b, low)
        grad_x = (grad @ weight).addmm_(through, a) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_a, grad_b, None


class _AddLowRank(torch.autograd.Function):
    """``base + scaling * (x A^T) B^T`` with base [M, N], for layers whose own product is more than a matrix times x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        narrow_a, narrow_b = a.to(x.dtype), b.to(x.dtype)
        low = x @ narrow_a.T  # [M, R]
        ctx.save_for_backward(x, narrow_a, narrow_b, low)
        ctx.scaling, ctx.dtype = scaling, a.dtype
        return torch.addmm(base, low, narrow_b.T, alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, low = ctx.saved_tensors
        through, grad_a, grad_b = _gradients(ctx, grad, x, b, low)
        return through @ a if ctx.needs_input_grad[0] else None, grad, grad_a, grad_b, None


def _gradients(ctx: Any, grad: Tensor, x: Tensor, b: Tensor, low: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``x A^T`` [M, R], A [R, K] and B [N, R]."""
    through = (grad @ b).mul_(ctx.scaling)
    # As [R, N], which matrix libraries multiply faster than [N, R].
    grad_b = (low.T @ grad).mul_(ctx.scaling).T.to(ctx.dtype).contiguous()
    return through, (through.T @ x).to(ctx.dtype), grad_b


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = _plain_adapter(layer) if not args and not kwargs else None
    if name is None:
        return type(layer).forward(layer, x, *args, **kwargs)
    own, scaling = layer.base_layer, layer.scaling[name]
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    flat = x.reshape(-1, x.shape[-1])  # a result that is a view of three dimensions could not be written into for free
    is_frozen = type(own) is nn.Linear and not own.weight.requires_grad
    if is_frozen and not torch.is_grad_enabled() and x.dtype == own.weight.dtype == _computed_in(own.weight):
        # The same products in the same order, without what autograd asks for: a fifth of a decoding step of few rows.
        low = flat @ a.to(x.dtype).T
        out = linear(flat, own.weight, own.bias).addmm_(low, b.to(x.dtype).T, alpha=scaling)
    elif is_frozen and own.weight.dtype == _computed_in(own.weight):
        with torch.autocast(x.device.type, enabled=False):
            out = _Linear.apply(flat.to(own.weight.dtype), own.weight, own.bias, a, b, scaling)
    else:
        base = own(flat)
        with torch.autocast(x.device.type, enabled=False):
            out = _AddLowRank.apply(flat.to(base.dtype), base, a, b, scaling)
    return out.view(*x.shape[:-1], out.shape[-1])


def _computed_in(weight: Tensor) -> torch.dtype:
    """The format that a product with ``weight`` is computed in here."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _plain_adapter(layer: Any) -> str | None:
    """The one adapter that is at work in ``layer``, if it is plain LoRA without dropout; else None."""
    if layer.disable_adapters or layer.merged:
        return None
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or names[0] in layer.lora_variant:
        return None
    dropout = layer.lora_dropout[names[0]]
    if layer.training and isinstance(dropout, nn.Dropout) and dropout.p > 0:
        return None
    return str(names[0]) if layer.lora_B[names[0]].bias is None else None


def lean_lora(model: nn.Module) -> None:
    """Let the LoRA layers of ``model`` on linear layers compute as described above, whatever adapters they hold or get later.

    Where a layer does more than plain LoRA with one active adapter (dropout, DoRA, mixed or merged adapters), PEFT's own
    forward is used.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), nn.Linear):
            module.forward = partial(_forward, module)
