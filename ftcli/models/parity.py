"""How nearly two models say the same: their next-token distributions at the same positions of the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Parity:
    """Of one model against another, over all answer positions; log-probabilities in nats."""

    positions: int
    top1_agreement: float
    """Share of positions where both find the same token likeliest."""
    logprob_max_diff: float
    logprob_mean_diff: float
    """Absolute difference of the log-probability of the token that stands there."""
    kl: float
    """Mean KL divergence from the first model to the second."""


@torch.inference_mode()
def answer_logprobs(model: Any, pairs: Sequence[Pair]) -> Tensor:
    """Log-probabilities [N, V] in float32 on the CPU, at the N positions that predict a token of an answer.

    ``pairs`` are ``(prompt ids, answer ids)``. The rows go through the whole model one by one: no padding, and whatever a model
    does to its logits is in.
    """
    device = model.get_input_embeddings().weight.device
    found = []
    for prompt, answer in pairs:
        ids = torch.tensor([prompt + answer], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]  # [answer, V]
        found.append(torch.log_softmax(logits.float(), dim=-1).cpu())
    return torch.cat(found)


def compare(reference: Tensor, other: Tensor, pairs: Sequence[Pair]) -> Parity:
    """``other`` [N, V] against ``reference`` [N, V], both from `answer_logprobs` of the same ``pairs``."""
    targets = torch.tensor([token for _, answer in pairs for token in answer])
    gold = (reference - other).gather(1, targets[:, None]).abs()
    kl = torch.nn.functional.kl_div(other, reference, log_target=True, reduction="none").sum(dim=1)
    return Parity(
        positions=len(targets),
        top1_agreement=(reference.argmax(dim=1) == other.argmax(dim=1)).double().mean().item(),
        logprob_max_diff=gold.max().item(),
        logprob_mean_diff=gold.double().mean().item(),
        kl=max(0.0, kl.double().mean().item()),
    )
