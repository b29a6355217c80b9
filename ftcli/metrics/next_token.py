"""How likely given tokens are as the very next one: a question with a choice of answers costs one pass, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ftcli.core.memory import in_batches
from ftcli.metrics.perplexity import predictors


def next_logprobs(
    backbone: Any,
    head: Any,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    *,
    pad_id: int,
    batch_size: int = 16,
    on_rows: Callable[[Sequence[int], Sequence[list[float]]], None] = lambda rows, found: None,
    on_halved: Callable[[int], None] = lambda size: None,
) -> list[list[float]]:
    """The log-probability of each of ``tokens`` after each prompt (token ids, at least one), for prompts in their order.

    ``backbone`` gives ``last_hidden_state`` [B, T, H], ``head`` logits of it. Batches, ``on_rows`` and ``on_halved`` are those of
    `ftcli.core.memory.in_batches`.
    """

    @torch.inference_mode()
    def compute(rows: list[int]) -> list[list[float]]:
        pairs = [(list(prompts[row]), [tokens[0]]) for row in rows]
        hidden = predictors(backbone, head.weight.device, pairs, pad_id).hidden  # [B, H]
        logits = head(hidden)  # [B, V]
        logprobs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(dim=1)
        found: list[list[float]] = logprobs[:, list(tokens)].double().tolist()
        return found

    return in_batches([len(prompt) for prompt in prompts], batch_size, compute, on_rows=on_rows, on_halved=on_halved)
