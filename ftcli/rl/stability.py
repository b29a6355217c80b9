"""How much a reward model's scores move though the text stays: batch size, and the number format of the weights.

Padding on the left cannot be compared with padding on the right: everything is computed from one layout, which pads on the right
(`ftcli.rl.sequences`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ftcli.models.generate import split_model
from ftcli.models.load import has_fast_bf16
from ftcli.rl.judged import Figures, agreement
from ftcli.rl.preferences import Comparison
from ftcli.rl.reward_model import RewardModel

SAMPLE = 32
"""Answers that are scored again, and the larger of the two batch sizes."""
FORMATS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def other_format(model: RewardModel) -> torch.dtype | None:
    """bfloat16 for a model whose weights are float32, and the other way round. None for any other, for 4-bit weights, and where
    the hardware has no bfloat16: nobody scores in it there, and it would take long."""
    backbone = split_model(model.model)[0]
    weight = backbone.get_input_embeddings().weight
    is_quantised = any(hasattr(one, "quant_state") for one in backbone.parameters())
    if weight.dtype not in FORMATS or is_quantised or not has_fast_bf16(weight.device):
        return None
    return next(dtype for dtype in FORMATS if dtype != weight.dtype)


def score_stability(model: RewardModel, comparisons: Sequence[Comparison], other: torch.dtype | None) -> Figures:
    """`agreement` of scores in batches of 1 and of `SAMPLE` (``batch``), and with the weights as they are and in ``other``
    (``format``, None without it), on about `SAMPLE` answers of prompts at even distances: each is computed two or three times.
    """
    chosen = _spread(comparisons)
    exchanges = [exchange for one in chosen for exchange in one.exchanges]
    starts = list(accumulate((len(one.exchanges) for one in chosen), initial=0))
    pairs = [
        (start + winner, start + loser)
        for start, one in zip(starts, chosen, strict=False)
        for winner, loser in one.pairs
    ]
    usual = model.score_exchanges(exchanges, SAMPLE)
    found: Figures = {"batch": agreement(model.score_exchanges(exchanges, 1), usual, pairs), "format": None}
    if other is not None:
        backbone = split_model(model.model)[0]
        own = backbone.get_input_embeddings().weight.dtype
        with computed_in(backbone, own, other):
            scores = model.score_exchanges(exchanges, SAMPLE)
        found["format"] = {"own": FORMATS[own], "other": FORMATS[other], **agreement(scores, usual, pairs)}
    return found


def _spread(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons at even distances with about `SAMPLE` answers together, at least one."""
    most = max(len(one.exchanges) for one in comparisons)
    count = min(len(comparisons), max(1, SAMPLE // most))
    return [comparisons[place * len(comparisons) // count] for place in range(count)]


@contextmanager
def computed_in(backbone: nn.Module, own: torch.dtype, other: torch.dtype) -> Iterator[None]:
    """Meanwhile ``backbone`` computes with its weights of format ``own`` (adapters stay) in ``other``.

    A layer is converted when its turn comes and given its weights back after it, so that this needs the memory of one layer more
    and not that of a second model.
    """
    kept: dict[nn.Module, list[tuple[nn.Parameter, Tensor]]] = {}

    def convert(module: nn.Module, *_: Any) -> None:
        named = module.named_parameters()
        kept[module] = [(one, one.data) for name, one in named if one.dtype == own and ".lora_" not in name]
        for weight, data in kept[module]:
            weight.data = data.to(other)

    def restore(module: nn.Module, *_: Any) -> None:
        for weight, data in kept.pop(module, []):
            weight.data = data

    layers = [
        layer for child in backbone.children() for layer in (child if isinstance(child, nn.ModuleList) else [child])
    ]
    hooks = [layer.register_forward_pre_hook(convert) for layer in layers]
    hooks += [layer.register_forward_hook(restore) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in list(kept):
            restore(module)
