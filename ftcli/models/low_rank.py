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


class _AddLowRank(torch.autograd.Function):
    """``base + scaling * (x A^T) B^T`` with base [M, N], x [M, K], A [R, K], B [N, R]; ``base`` is overwritten if ``inplace``."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, a: Tensor, b: Tensor, scaling: float, inplace: bool) -> Tensor:
        narrow_a, narrow_b = a.to(base.dtype), b.to(base.dtype)
        low = x @ narrow_a.T  # [M, R]
        ctx.save_for_backward(x, narrow_a, narrow_b, low)
        ctx.scaling, ctx.dtype = scaling, a.dtype
        if inplace:
            ctx.mark_dirty(base)
            return base.addmm_(low, narrow_b.T, alpha=scaling)
        return torch.addmm(base, low, narrow_b.T, alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, low = ctx.saved_tensors
        through = (grad @ b).mul_(ctx.scaling)  # [M, R]
        grad_x = through @ a if ctx.needs_input_grad[1] else None
        grad_a = (through.T @ x).to(ctx.dtype) if ctx.needs_input_grad[2] else None
        # As [R, N], which matrix libraries multiply faster than [N, R].
        grad_b = (low.T @ grad).mul_(ctx.scaling).T.to(ctx.dtype).contiguous() if ctx.needs_input_grad[3] else None
        return grad, grad_x, grad_a, grad_b, None, None


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = _plain_adapter(layer) if not args and not kwargs else None
    if name is None:
        return type(layer).forward(layer, x, *args, **kwargs)
    base = layer.base_layer(x)
    flat = base.reshape(-1, base.shape[-1])
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    inputs = x.reshape(-1, x.shape[-1]).to(base.dtype)
    # A 4-bit layer's output may be a view, which autograd forbids to overwrite.
    inplace = type(layer.base_layer) is nn.Linear
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled():
            flat = _AddLowRank.apply(flat, inputs, a, b, layer.scaling[name], inplace)
        else:
            low = inputs @ a.T.to(base.dtype)
            flat.addmm_(low, b.T.to(base.dtype), alpha=layer.scaling[name])
    return flat.view(base.shape)


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
