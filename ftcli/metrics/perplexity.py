"""What a text costs a model: the reference answer with its prompt given (the headline), or a whole text in sliding windows.

An answer is scored through its end-of-turn token and nothing after it (`ftcli.data.chat.render_answer`): a template's closing
line break costs almost nothing and would dilute the mean. The corpus value weighs tokens, ``exp(sum nll / sum tokens)``; the mean
over texts of exp(mean nll) that `evaluate` computes is no perplexity of the corpus. The backbone runs once a batch and the LM
head only at the positions that predict an answer token, in slices, since full logits of a batch take gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ftcli.core.memory import in_batches
from ftcli.metrics.statistics import Examples

LN2 = math.log(2)
HEAD_TOKENS = 512
"""Positions whose logits exist at a time."""

Pair = tuple[list[int], list[int]]
"""The tokens of a prompt and of what follows it; only the latter are scored. Neither is empty."""


@dataclass(frozen=True)
class AnswerScore:
    """``nll``: negative log-likelihood of the whole answer in nats, summed in float64 over its ``tokens``."""

    nll: float
    tokens: int


def score_answers(
    backbone: Any,
    head: Any,
    pairs: Sequence[Pair],
    *,
    pad_id: int,
    batch_size: int = 16,
    on_rows: Callable[[Sequence[int], Sequence[AnswerScore]], None] = lambda rows, scores: None,
    on_halved: Callable[[int], None] = lambda size: None,
) -> list[AnswerScore]:
    """Score ``(prompt ids, answer ids)`` pairs, in their order; prompts and answers have at least one token each.

    ``backbone`` gives ``last_hidden_state`` [B, T, H], ``head`` logits of it. Longest pairs come first, and where memory does not
    suffice, batches are halved, which ``on_halved`` hears of (`ftcli.core.memory.in_batches`). The batch size changes no result
    beyond the rounding of the matrix products. ``on_rows`` is called with the pairs of each finished batch and their scores.
    """
    return in_batches(
        [len(prompt) + len(answer) for prompt, answer in pairs],
        batch_size,
        lambda rows: _score_batch(backbone, head, [pairs[row] for row in rows], pad_id),
        on_rows=on_rows,
        on_halved=on_halved,
    )


@torch.inference_mode()
def _score_batch(backbone: Any, head: Any, pairs: list[Pair], pad_id: int) -> list[AnswerScore]:
    found = predictors(backbone, head.weight.device, pairs, pad_id)
    nll = _token_nll(head, found.hidden, found.targets)  # [N]
    sums = torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, found.rows, nll)  # [B]
    return [AnswerScore(float(total), len(answer)) for total, (_, answer) in zip(sums, pairs, strict=True)]


class Predictors(NamedTuple):
    """For the N answer tokens of a batch, pair after pair: ``hidden`` [N, H] from which each is predicted, ``targets`` [N], and the
    pair that each is of, ``rows`` [N] on the CPU."""

    hidden: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor


def predictors(backbone: Any, device: torch.device, pairs: Sequence[Pair], pad_id: int) -> Predictors:
    """One pass over ``(prompt ids, answer ids)`` pairs, padded on the right."""
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.full((len(pairs), longest), pad_id)  # [B, T]
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
    return Predictors(hidden[row.to(device), position.to(device)], ids[row, position + 1].to(device), row)


def _token_nll(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p of ``targets`` [N] from ``hidden`` [N, H], as float64 on the CPU; each softmax is at least float32."""
    parts = []
    for start in range(0, len(hidden), HEAD_TOKENS):
        logits = head(hidden[start : start + HEAD_TOKENS])  # [up to HEAD_TOKENS, V], contiguous
        logits = logits if logits.dtype == torch.float64 else logits.float()
        parts.append(F.cross_entropy(logits, targets[start : start + HEAD_TOKENS], reduction="none").double().cpu())
    return torch.cat(parts)


def windows(ids: Sequence[int], context: int, stride: int, prefix: int | None = None) -> list[Pair]:
    """A text in windows of at most ``context`` tokens, each beginning ``stride`` tokens after the one before, as pairs for
    `score_answers`: what an earlier window has scored is the prompt. So every token is scored once, all but those of the first
    window with at least ``context - stride`` tokens before them.

    ``prefix`` is a token put before the text; without it the first token of the text is not scored, since nothing predicts it.
    Raises `ValueError` unless 0 < stride < context: with stride = context each window's first token would have no predictor.
    """
    if not 0 < stride < context:
        raise ValueError(f"stride {stride} must be above 0 and below context {context}")
    tokens = [*([] if prefix is None else [prefix]), *ids]
    pairs: list[Pair] = []
    scored, begin = 1, 0
    while scored < len(tokens):
        end = min(begin + context, len(tokens))
        pairs.append((tokens[begin:scored], tokens[scored:end]))
        scored, begin = end, begin + stride
    if sum(len(answer) for _, answer in pairs) != max(len(tokens) - 1, 0):
        raise AssertionError("a token of the text was scored twice or not at all")
    return pairs


def of_texts(parts: Sequence[Sequence[Pair]], scores: Sequence[AnswerScore]) -> list[AnswerScore]:
    """The scores of whole texts from those of their `windows` ``parts``, text after text; ``tokens`` are those that were scored, 0
    for a text without windows."""
    found = iter(scores)
    texts = [[next(found) for _ in own] for own in parts]
    return [AnswerScore(sum(one.nll for one in own), sum(one.tokens for one in own)) for own in texts]


def bits_per_byte(scores: Sequence[AnswerScore], sizes: Sequence[int]) -> Examples:
    """The additive statistics (bits, UTF-8 bytes of the scored text) of each text: what two tokenizers can be compared by."""
    return Examples(np.asarray([[one.nll / LN2, size] for one, size in zip(scores, sizes, strict=True)]))


def log_perplexity(scores: Sequence[AnswerScore]) -> Examples:
    """The additive statistics (nll, tokens) of each answer; their quotient is log perplexity, nats a token."""
    return Examples(np.asarray([[score.nll, score.tokens] for score in scores], dtype=np.float64))
