"""The language-model loss with the head computed at label positions only.

A language model's head costs ``2 * H * V`` operations a position, for a small model with a large vocabulary as much as
all its layers, yet prompt and padding positions have no label. A forward pre-hook on the head keeps the positions
whose next token is a label, so the model's own ``forward`` runs as always, with whatever it does around the head
(logit scaling, soft-capping, 4-bit or sharded weights, a wrapper of the model). TRL 1.16 does the same on CUDA through
Triton; elsewhere its head scores every position.

Where the head is frozen and does nothing but its matrix product (`has_plain_head`, LoRA and QLoRA), the loss and its gradient are
computed together, some labels at a time: logits are never held, nor computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear

from ftcli.models.generate import changes_logits
from ftcli.models.packing import pack, within

IGNORED = -100
"""The label of a token that is not trained on."""


def nll_sum(
    model: Any, head: nn.Module, batch: dict[str, Tensor], *, packed: bool = False, plain_head: bool = False
) -> tuple[Tensor, Tensor]:
    """Sum of the negative log-likelihoods of the labels (float32, with gradient), and their number.

    ``batch`` has ``input_ids``, ``attention_mask`` and ``labels``, each [B, T] and padded on the right; labels are not
    shifted, and `IGNORED` where a token is not trained on. ``head`` is the module of ``model`` that maps hidden states to
    logits. ``packed``: the model takes rows end to end (`ftcli.models.packing`) and computes no padding. ``plain_head``: as
    `has_plain_head` says of the model.
    """
    targets = batch["labels"][:, 1:]  # [B, T-1]
    keep = torch.zeros_like(batch["labels"], dtype=torch.bool)  # [B, T]
    keep[:, :-1] = targets != IGNORED
    labels = targets[targets != IGNORED]  # [N]
    if packed:
        lengths = batch["attention_mask"].sum(dim=1)  # [B]
        inputs = pack(batch["input_ids"], lengths)
        keep = keep[within(keep.shape[1], lengths)][None]  # [1, tokens]
    else:
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    kept: list[Tensor] = []

    def at_labels(module: nn.Module, args: Any) -> tuple[Tensor]:
        kept.append(args[0][keep])  # [B, T, H] -> [N, H]
        return (kept[0][:0] if plain_head else kept[0],)

    hook = head.register_forward_pre_hook(at_labels)
    try:
        output = model(**inputs, use_cache=False)
    finally:
        hook.remove()
    if plain_head:
        hidden = kept[0].to(head.weight.dtype)
        return _ChunkedLoss.apply(hidden, head.weight, labels, _chunk(head.weight)), keep.sum()
    return cross_entropy(output.logits.float(), labels, reduction="sum"), keep.sum()  # logits: [N, V]


def has_plain_head(model: Any) -> bool:
    """Whether ``model``'s logits are its hidden states times one frozen matrix, and nothing else."""
    head = model.get_output_embeddings()
    return type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad and not changes_logits(model)


def _chunk(weight: Tensor) -> int:
    """How many labels at a time: on a CPU so many that their logits stay in its cache."""
    chunk_bytes = 2**24 if weight.device.type == "cpu" else 2**29
    return max(chunk_bytes // (4 * weight.shape[0]), 1)


class _ChunkedLoss(torch.autograd.Function):
    """Sum of the negative log-likelihoods of ``labels`` [N] under the logits ``hidden`` [N, H] x ``weight`` [V, H] transposed."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for first in range(0, len(hidden), chunk):
            part = slice(first, first + chunk)
            logits = linear(hidden[part], weight).float()  # [n, V]
            places = torch.arange(len(logits), device=logits.device)
            scale = logits.logsumexp(dim=1)  # [n]
            total += (scale - logits[places, labels[part]]).sum()
            if grad is not None:  # of the logits: probabilities, less 1 at the label
                logits.sub_(scale[:, None]).exp_()
                logits[places, labels[part]] -= 1
                grad[part] = logits.to(weight.dtype) @ weight
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * outer.to(grad.dtype), None, None, None
