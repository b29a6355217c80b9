"""Attention of short rows written out, with a backward pass that keeps the weights in the model's own format and nothing else.

Left to autograd, the scores' softmax in float32 is kept too: for rows of 256 tokens that is most of what a small model keeps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout as drop
from torch.nn.functional import softmax


class _Attention(torch.autograd.Function):
    """``softmax(scale q k^T + hidden) v`` with q [B, H, T, D], k and v [B, G, T, D], hidden [T, T] of 0 and -inf."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, scale: float) -> Tensor:
        grouped = _grouped(q * scale, k)
        weights = _weights(grouped, k, hidden, q.shape)
        ctx.save_for_backward(grouped, k, v, weights)
        ctx.scale = scale
        return (weights.view(*grouped.shape[:3], -1) @ v).view(q.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grouped, k, v, weights = ctx.saved_tensors
        shape = grad.shape
        grad = _grouped(grad, k)  # [B, G, H / G * T, D]
        weights = weights.view(*grad.shape[:3], -1)  # [B, G, H / G * T, T]
        grad_v = weights.transpose(2, 3) @ grad
        inner, wide = (grad @ v.transpose(2, 3)).float(), weights.float()
        inner.sub_((inner * wide).sum(-1, keepdim=True)).mul_(wide)  # through the softmax
        scores = inner.to(grad.dtype)
        grad_q = (scores @ k).mul_(ctx.scale).view(shape)
        return grad_q, scores.transpose(2, 3) @ grouped, grad_v, None, None


def plain_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float, dropout: float) -> Tensor:
    """[B, H, T, D] from q [B, H, T, D], k and v [B, G, T, D]; ``seen`` [T, T] is True where a query (row) may see a key."""
    hidden = torch.zeros_like(seen, dtype=q.dtype).masked_fill_(~seen, float("-inf"))
    if not dropout:
        with torch.autocast(q.device.type, enabled=False):
            dtype = v.dtype  # under autocast, rotary embeddings leave q and k in float32
            return _Attention.apply(q.to(dtype), k.to(dtype), v, hidden.to(dtype), scale)
    grouped = _grouped(q * scale, k)
    weights = drop(_weights(grouped, k, hidden, q.shape), dropout)
    return (weights.view(*grouped.shape[:3], -1) @ v).view(q.shape)


def _grouped(q: Tensor, k: Tensor) -> Tensor:
    """Heads that share a key head as more rows of one product: [B, H, T, D] as [B, G, H / G * T, D]."""
    batch, heads, width, size = q.shape
    groups = k.shape[1]
    return q.reshape(batch, groups, heads // groups * width, size)


def _weights(grouped: Tensor, k: Tensor, hidden: Tensor, shape: torch.Size) -> Tensor:
    batch, heads, width, _ = shape
    scores = (grouped @ k.transpose(2, 3)).view(batch, heads, width, width) + hidden
    return softmax(scores, dim=-1, dtype=torch.float32).to(grouped.dtype)
