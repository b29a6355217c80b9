"""Log-probabilities of given tokens from hidden states, at the positions that are asked for only.

A full ``[B, T, V]`` float32 tensor of logits is what makes naive implementations run out of memory (64 x 512 x 152k
is 20 GB), and prompt positions need none of it. Here some positions at a time go through the head. Where it is frozen and
does nothing but its matrix product, as under an adapter, the gradient is computed with the values: logits are never held, nor
computed twice. Another head is computed once more in the backward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint


class TokenScores(NamedTuple):
    """Per position: log-probability of the target token, and the entropy of the whole distribution (nats)."""

    logprobs: Tensor
    entropy: Tensor


def token_logprobs(
    hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float = 1.0, chunk_tokens: int | None = None
) -> Tensor:
    """Log-probs [N] of ``targets`` [N] under ``softmax(head(hidden) / temperature)``; ``hidden`` [N, H].

    The softmax is float32 (float64 for a float64 model) whatever the model computes in. ``chunk_tokens`` positions are computed
    at a time; by default as many as a CPU's cache, or a modest part of a GPU's memory, can take.
    """
    chunk = chunk_tokens or _chunk(head)
    if is_plain(head):
        found: Tensor = _FrozenHead.apply(hidden, head.weight, targets, temperature, chunk)
        return found
    pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([_again(_logprobs, piece, head, wanted, temperature) for piece, wanted in pieces])


def token_scores(
    hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float = 1.0, chunk_tokens: int | None = None
) -> TokenScores:
    """As `token_logprobs`, with entropies; both have a gradient where that is on."""
    chunk = chunk_tokens or _chunk(head)
    pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    found = [_again(_scores, piece, head, wanted, temperature) for piece, wanted in pieces]
    return TokenScores(torch.cat([logprobs for logprobs, _ in found]), torch.cat([entropy for _, entropy in found]))


def _again(function: Any, *arguments: Any) -> Any:
    """``function``'s value; what it held is computed anew in the backward pass, if there is one."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)


def _chunk(head: nn.Module) -> int:
    """How many positions at a time: on a CPU so many that their logits stay in its cache."""
    weight = head.weight
    chunk_bytes = 2**24 if weight.device.type == "cpu" else 2**29
    return max(chunk_bytes // (4 * weight.shape[0]), 1)


def is_plain(head: nn.Module) -> bool:
    """Whether ``head`` is one frozen matrix and nothing else."""
    return type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad


def _softer(logits: Tensor, temperature: float) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits / temperature  # [N, V]


def _target_logprobs(logits: Tensor, normaliser: Tensor, targets: Tensor) -> Tensor:
    """[N]. The same operations wherever a log-prob is computed, so that equal weights give equal bits."""
    return logits.gather(1, targets[:, None])[:, 0] - normaliser


def _logprobs(hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float) -> Tensor:
    logits = _softer(head(hidden), temperature)
    return _target_logprobs(logits, logits.logsumexp(dim=1), targets)


def _scores(hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = _softer(head(hidden), temperature)
    normaliser = logits.logsumexp(dim=1)  # [N]
    logprobs = _target_logprobs(logits, normaliser, targets)
    if torch.is_grad_enabled():
        expected = (logits - normaliser[:, None]).exp().mul(logits).sum(dim=1)
    else:
        expected = (logits - normaliser[:, None]).exp_().mul_(logits).sum(dim=1)  # [N]
    return logprobs, normaliser - expected


class _FrozenHead(torch.autograd.Function):
    """Log-probs [N] of ``targets`` [N] under ``hidden`` [N, H] x ``weight`` [V, H] transposed.

    d log p(t) / d hidden = (W_t - sum_v p_v W_v) / temperature, one row of H numbers a position, which is all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, chunk: int) -> Tensor:
        found = []
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for first in range(0, max(len(hidden), 1), chunk):  # once also without positions
            part = slice(first, first + chunk)
            logits = _softer(linear(hidden[part], weight), temperature)  # [n, V]
            normaliser = logits.logsumexp(dim=1)  # [n]
            found.append(_target_logprobs(logits, normaliser, targets[part]))
            if grad is not None:  # of the logits, negated: probabilities, less 1 at the target
                logits.sub_(normaliser[:, None]).exp_()
                logits[torch.arange(len(logits), device=logits.device), targets[part]] -= 1
                grad[part] = (logits.to(weight.dtype) @ weight).div_(-temperature)
        ctx.save_for_backward(grad)
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * outer.to(grad.dtype)[:, None], None, None, None, None
