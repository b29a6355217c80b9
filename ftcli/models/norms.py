"""Root mean square normalisation (arXiv 1910.07467) that keeps one tensor for the backward pass, in the model's own format.

Written with PyTorch's operations, as in transformers' models, autograd keeps several tensors in float32 for each norm: of SmolLM2's
activations a third. What is computed forward is the same to the last bit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _RMSNorm(torch.autograd.Function):
    """``weight * y`` with ``y = x / sqrt(mean(x^2) + eps)``, x [..., H] and weight [H] of one format, y computed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)  # [..., 1]
        normed = (wide * scale).to(x.dtype)
        ctx.save_for_backward(normed, scale, weight)
        return weight * normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normed, scale, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            inner, wide = (grad * weight).float(), normed.float()
            along = (inner * wide).mean(-1, keepdim=True)  # what only stretches x changes nothing
            grad_x = inner.addcmul_(wide, along, value=-1).mul_(scale).to(grad.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = (grad.float() * normed.float()).flatten(0, -2).sum(0).to(weight.dtype)
        return grad_x, grad_weight, None


def _forward(norm: nn.Module, eps: float, x: Tensor) -> Tensor:
    weight: Any = norm.weight
    if not torch.is_grad_enabled() or x.dtype != weight.dtype:
        return type(norm).forward(norm, x)
    return _RMSNorm.apply(x, weight, eps)


def lean_norms(model: nn.Module) -> int:
    """Let the RMS norms of ``model`` compute as described above; how many there are.

    Those count that give the same for random input, whatever their class: some models' norms do more.
    """
    count = 0
    for module in model.modules():
        eps = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
        weight = getattr(module, "weight", None)
        if eps and isinstance(weight, Tensor) and weight.dim() == 1 and "RMSNorm" in type(module).__name__:
            x = torch.linspace(-3, 5, 2 * len(weight), device=weight.device).to(weight.dtype).view(1, 2, -1)
            if torch.equal(module(x), _RMSNorm.apply(x, weight, eps)):
                module.forward = partial(_forward, module, eps)
                count += 1
    return count
