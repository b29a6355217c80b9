"""The language-model loss with the head computed at label positions only.

A language model's head costs ``2 * H * V`` operations a position, for a small model with a large vocabulary as much as
all its layers, yet prompt and padding positions have no label. A forward pre-hook on the head keeps the positions
whose next token is a label, so the model's own ``forward`` runs as always, with whatever it does around the head
(logit scaling, soft-capping, 4-bit or sharded weights, a wrapper of the model). TRL 1.16 does the same on CUDA through
Triton; elsewhere its head scores every position.

Where the head is frozen and does nothing but its matrix product (`has_plain_head`, LoRA and QLoRA), the loss and its gradient are
computed together, some labels at a time (`ftcli.models.logprobs`): logits are never held, nor computed twice.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ftcli.models.generate import changes_logits
from ftcli.models.logprobs import is_plain, token_logprobs
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
    found, labels, where = _at_labels(model, head, batch, packed=packed, skips_head=plain_head)
    if plain_head:
        return -token_logprobs(found.to(head.weight.dtype), head, labels).sum(), where.sum()
    return cross_entropy(found.float(), labels, reduction="sum"), where.sum()


def label_logprobs(
    model: Any, head: nn.Module, batch: dict[str, Tensor], *, packed: bool = False, linear_head: bool = False
) -> Tensor:
    """Log-probabilities [B, T - 1] of the labels that the positions before them predict (float32, with gradient), 0 elsewhere.

    Arguments are those of `nll_sum`. ``linear_head``: logits are what ``head`` makes of hidden states and nothing else, so that
    it may be applied to some positions at a time (`ftcli.models.generate.changes_logits`).
    """
    found, labels, where = _at_labels(model, head, batch, packed=packed, skips_head=linear_head)
    if linear_head:
        values = token_logprobs(found.to(head.weight.dtype), head, labels)  # [N]
    else:
        values = -cross_entropy(found.float(), labels, reduction="none")
    return values.new_zeros(where.shape).masked_scatter(where, values)


def _at_labels(
    model: Any, head: nn.Module, batch: dict[str, Tensor], *, packed: bool, skips_head: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, V] at the positions that predict a label, or hidden states [N, H] if that ``skips_head``; the labels [N];
    and where they are predicted [B, T - 1]."""
    targets = batch["labels"][:, 1:]  # [B, T-1]
    where = targets != IGNORED
    labels = targets[where]  # [N]
    keep = pad(where, (0, 1))  # [B, T]
    if packed:
        lengths = batch["attention_mask"].sum(dim=1)  # [B]
        inputs = pack(batch["input_ids"], lengths)
        keep = keep[within(keep.shape[1], lengths)][None]  # [1, tokens]
    else:
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    kept: list[Tensor] = []

    def at_labels(module: nn.Module, args: Any) -> tuple[Tensor]:
        kept.append(args[0][keep])  # [B, T, H] -> [N, H]
        return (kept[0][:0] if skips_head else kept[0],)

    hook = head.register_forward_pre_hook(at_labels)
    try:
        output = model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return kept[0] if skips_head else output.logits, labels, where


def has_plain_head(model: Any) -> bool:
    """Whether ``model``'s logits are its hidden states times one frozen matrix, and nothing else."""
    return is_plain(model.get_output_embeddings()) and not changes_logits(model)
