"""Log-probabilities of given tokens from hidden states, at the positions that are asked for only.

A full ``[B, T, V]`` float32 tensor of logits is what makes naive implementations run out of memory (64 x 512 x 152k
is 20 GB), and prompt positions need none of it. Beyond ``chunk_tokens`` positions the head is applied piece by piece
and recomputed in the backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint


class TokenScores(NamedTuple):
    """Per position: log-probability of the target token, and the entropy of the whole distribution (nats)."""

    logprobs: Tensor
    entropy: Tensor


def _logits(hidden: Tensor, head: nn.Module, temperature: float) -> Tensor:
    logits: Tensor = head(hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature  # [N, V]


def _logprobs(hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float) -> Tensor:
    return -cross_entropy(_logits(hidden, head, temperature), targets, reduction="none")  # [N]


def token_logprobs(
    hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float = 1.0, chunk_tokens: int = 1024
) -> Tensor:
    """Log-probs [N] of ``targets`` [N] under ``softmax(head(hidden) / temperature)``; ``hidden`` [N, H].

    The softmax is float32 (float64 for a float64 model) whatever the model computes in.
    """
    if len(targets) <= chunk_tokens:
        return _logprobs(hidden, head, targets, temperature)
    pieces = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    return torch.cat(
        [checkpoint(_logprobs, piece, head, wanted, temperature, use_reentrant=False) for piece, wanted in pieces]
    )


@torch.no_grad()
def token_scores(
    hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float = 1.0, chunk_tokens: int = 1024
) -> TokenScores:
    """As `token_logprobs`, without gradient and with entropies."""
    logprobs, entropies = [], []
    for piece, wanted in zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True):
        logits = _logits(piece, head, temperature)
        logprobs.append(-cross_entropy(logits, wanted, reduction="none"))
        normaliser = logits.logsumexp(dim=-1)
        entropies.append(normaliser - (logits - normaliser[:, None]).exp_().mul_(logits).sum(dim=-1))
    return TokenScores(torch.cat(logprobs), torch.cat(entropies))
