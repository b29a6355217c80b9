"""Completion-only perplexity under the chat template: what the reference answer costs the model, prompt given.

The answer is scored through its end-of-turn token and nothing after it (`ftcli.data.chat.render_answer`): a template's closing
line break costs almost nothing and would dilute the mean. The corpus value weighs tokens, ``exp(sum nll / sum tokens)``; the mean
over texts of exp(mean nll) that `evaluate` computes is no perplexity of the corpus. The backbone runs once a batch and the LM
head only at the positions that predict an answer token, in slices, since full logits of a batch take gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ftcli.metrics.statistics import Examples

HEAD_TOKENS = 512
"""Positions whose logits exist at a time."""


@dataclass(frozen=True)
class AnswerScore:
    """``nll``: negative log-likelihood of the whole answer in nats, summed in float64 over its ``tokens``."""

    nll: float
    tokens: int


def score_answers(
    backbone: Any,
    head: Any,
    pairs: Sequence[tuple[list[int], list[int]]],
    *,
    pad_id: int,
    batch_size: int = 16,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[AnswerScore]:
    """Score ``(prompt ids, answer ids)`` pairs, in their order; prompts and answers have at least one token each.

    ``backbone`` gives ``last_hidden_state`` [B, T, H], ``head`` logits of it. Longest pairs come first: memory runs out at once or
    not at all. The batch size changes no result beyond the rounding of the matrix products.
    """
    order = sorted(range(len(pairs)), key=lambda index: -(len(pairs[index][0]) + len(pairs[index][1])))
    scores: dict[int, AnswerScore] = {}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = _score_batch(backbone, head, [pairs[index] for index in chosen], pad_id)
        scores.update(zip(chosen, batch, strict=True))
        on_batch(len(scores))
    return [scores[index] for index in range(len(pairs))]


@torch.inference_mode()
def _score_batch(backbone: Any, head: Any, pairs: list[tuple[list[int], list[int]]], pad_id: int) -> list[AnswerScore]:
    device = head.weight.device
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.full((len(pairs), longest), pad_id)  # [B, T], right-padded
    mask = torch.zeros_like(ids)
    rows, positions = [], []
    for row, (prompt, answer) in enumerate(pairs):
        length = len(prompt) + len(answer)
        ids[row, :length] = torch.tensor(prompt + answer)
        mask[row, :length] = 1
        rows += [row] * len(answer)
        positions += range(len(prompt) - 1, length - 1)  # a position predicts the token after it
    hidden = backbone(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).last_hidden_state
    row, position = torch.tensor(rows), torch.tensor(positions)
    nll = _token_nll(
        head, hidden[row.to(device), position.to(device)], ids[row, position + 1].to(device)
    )  # [answer tokens]
    sums = torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, row, nll)  # [B]
    return [AnswerScore(float(total), len(answer)) for total, (_, answer) in zip(sums, pairs, strict=True)]


def _token_nll(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p of ``targets`` [N] from ``hidden`` [N, H], as float64 on the CPU; each softmax is at least float32."""
    parts = []
    for start in range(0, len(hidden), HEAD_TOKENS):
        logits = head(hidden[start : start + HEAD_TOKENS])  # [up to HEAD_TOKENS, V], contiguous
        logits = logits if logits.dtype == torch.float64 else logits.float()
        parts.append(F.cross_entropy(logits, targets[start : start + HEAD_TOKENS], reduction="none").double().cpu())
    return torch.cat(parts)


def log_perplexity(scores: Sequence[AnswerScore]) -> Examples:
    """The additive statistics (nll, tokens) of each answer; their quotient is log perplexity, nats a token."""
    return Examples(np.asarray([[score.nll, score.tokens] for score in scores], dtype=np.float64))


def perplexity(scores: Sequence[AnswerScore]) -> float:
    """exp(sum of nll / sum of tokens)."""
    return math.exp(log_perplexity(scores).value())
