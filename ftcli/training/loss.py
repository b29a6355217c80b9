"""The language-model loss with the head computed at label positions only.

A language model's head costs ``2 * H * V`` operations a position, for a small model with a large vocabulary as much as
all its layers, yet prompt and padding positions have no label. A forward pre-hook on the head keeps the positions
whose next token is a label, so the model's own ``forward`` runs as always, with whatever it does around the head
(logit scaling, soft-capping, 4-bit or sharded weights, a wrapper of the model). TRL 1.16 does the same on CUDA through
Triton; elsewhere its head scores every position.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from ftcli.models.packing import pack, within

IGNORED = -100
"""The label of a token that is not trained on."""


def nll_sum(
    model: Any, head: torch.nn.Module, batch: dict[str, torch.Tensor], *, packed: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the negative log-likelihoods of the labels (float32, with gradient), and their number.

    ``batch`` has ``input_ids``, ``attention_mask`` and ``labels``, each [B, T] and padded on the right; labels are not
    shifted, and `IGNORED` where a token is not trained on. ``head`` is the module of ``model`` that maps hidden states to
    logits. ``packed``: the model takes rows end to end (`ftcli.models.packing`) and computes no padding.
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
    hook = head.register_forward_pre_hook(lambda module, args: (args[0][keep],))  # [B, T, H] -> [N, H]
    try:
        output = model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return cross_entropy(output.logits.float(), labels, reduction="sum"), keep.sum()  # logits: [N, V]
