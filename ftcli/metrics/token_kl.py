"""How far a tuned model has moved from its base: the KL divergence of next-token distributions along the base's own answers.

It needs no references, and sees every change of the distribution, not only of the likeliest answer. The whole distribution
counts, so this is the divergence itself and no estimate from samples: sum over v of p(v) (log p(v) - log q(v)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ftcli.metrics.perplexity import HEAD_TOKENS, Pair, predictors


@torch.inference_mode()
def answer_logprobs(
    backbone: Any, head: Any, pairs: Sequence[Pair], *, pad_id: int, batch_size: int = 16
) -> Iterator[Tensor]:
    """Log-probs [answer tokens, V], float32 on the CPU (float64 for a float64 model), at each token of each pair's answer, pair
    after pair. The distribution is that of the token itself, given all before it."""
    for first in range(0, len(pairs), batch_size):
        batch = pairs[first : first + batch_size]
        found = predictors(backbone, head.weight.device, batch, pad_id)
        logits = torch.cat([head(part) for part in found.hidden.split(HEAD_TOKENS)])  # [N, V]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        yield from logits.log_softmax(dim=1).cpu().split([len(answer) for _, answer in batch])


def kl(base: Tensor, tuned: Tensor) -> Tensor:
    """KL(base || tuned) in nats at each position [N], float64, from log-probs [N, V]. Exactly 0 for equal log-probs."""
    base = base.double()
    difference = base - tuned.double()
    return torch.where(base > -torch.inf, base.exp() * difference, 0.0).sum(dim=1)
