"""Sample responses and measure them: what PPO needs to know of a rollout before it updates anything.

With several processes each samples and measures a share, and everything is gathered, so that each of them then knows the whole
rollout and computes the same advantages from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ftcli.rl.kl import k1
from ftcli.rl.ranks import Ranks
from ftcli.rl.rewards import Score, Scores
from ftcli.rl.roles import Roles
from ftcli.rl.sequences import Exchange, Prompt, collate, micro_batches

if TYPE_CHECKING:
    from ftcli.rl.engines import RolloutEngine  # which imports `Sampling` from here

T = TypeVar("T")


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. Temperature is the only knob: whatever truncates the distribution makes the ratios of
    PPO wrong."""

    stop_ids: frozenset[int]
    pad_id: int
    response_length: int
    temperature: float = 1.0
    batch_size: int = 32


@dataclass(frozen=True)
class Measured:
    """Per response token, all [B, R] on the CPU and 0 where ``mask`` is False; ``entropy`` is the policy's, in nats."""

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Experience:
    """A rollout ready to learn from. ``scores`` are raw, ``shaped`` [B] what stands on the last token; the rest is [B, R].

    Where another program sampled, ``gap`` tells how far its log-probs are (`ftcli.rl.engines.logprob_gap`), and ``importance``
    weighs the policy's loss (`ftcli.rl.engines.rollout_weights`).
    """

    exchanges: list[Exchange]
    scores: Scores
    shaped: Tensor
    measured: Measured
    advantages: Tensor
    returns: Tensor
    gap: dict[str, float] = field(default_factory=dict)
    importance: Tensor | None = None


def interleaved(shares: Sequence[Sequence[T]]) -> list[T]:
    """The whole of which share r holds the items r, r + size, r + 2 size, ..."""
    whole: list[T | None] = [None] * sum(map(len, shares))
    for rank, share in enumerate(shares):
        whole[rank :: len(shares)] = share
    return whole  # type: ignore[return-value]


def sample_exchanges(
    roles: Roles,
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    keys: Sequence[str],
    sampling: Sampling,
    seed: int,
    ranks: Ranks,
) -> list[Exchange]:
    """One response of the policy, which ``engine`` has, to each of ``prompts``; ``keys`` and ``seed`` decide the draws
    (`ftcli.models.generate`)."""
    mine = slice(ranks.rank, None, ranks.size)
    with roles.computing():
        own = engine.generate([one.ids for one in prompts[mine]], keys[mine], sampling, seed)
    answers = interleaved(ranks.gather(own))
    return [
        Exchange(prompt.ids, answer.ids, answer.finish_reason == "stop", prompt.row, answer.logprobs)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def score_exchanges(score: Score, exchanges: Sequence[Exchange], ranks: Ranks) -> Scores:
    """What ``score`` says of ``exchanges``, in their order."""
    shares = ranks.gather(score(exchanges[ranks.rank :: ranks.size]))
    names = shares[0].parts
    return Scores(
        interleaved([share.total for share in shares]),
        {name: interleaved([share.parts[name] for share in shares]) for name in names},
    )


@torch.no_grad()
def measure(
    roles: Roles,
    exchanges: Sequence[Exchange],
    groups: Sequence[list[int]],
    sampling: Sampling,
    device: torch.device,
    ranks: Ranks,
) -> Measured:
    """Log-probs, reference log-probs, values and entropies of ``exchanges``, computed in the micro-batches ``groups``, which are
    this process's share.

    They are recomputed in the training layout and not taken from the sampler: in bfloat16 the two differ by up to 0.2.
    """
    lengths = torch.tensor([len(one.response) for one in exchanges])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]  # [B, R]
    found: dict[str, Tensor] = {}
    for chosen in groups:
        batch = collate([exchanges[index] for index in chosen], sampling.pad_id, device)
        own = roles.measure_policy(batch, sampling.temperature)
        parts = {
            "logprobs": own.logprobs,
            "entropy": own.entropy,
            "ref_logprobs": roles.reference(batch, sampling.temperature),
            "values": roles.values(batch, own.trunk),
        }
        micro_width = batch.mask.shape[1]
        for name, part in parts.items():
            whole = found.setdefault(name, torch.zeros(mask.shape, dtype=part.dtype))
            whole[chosen, :micro_width] = part.cpu()
    shares = ranks.gather(found)
    names = max(shares, key=len)  # a process without a share has nothing
    return Measured(mask=mask, **{name: _sum([share[name] for share in shares if share]) for name in names})


def _sum(shares: list[Any]) -> Tensor:
    """Every row is in one share, and 0 in the others."""
    total: Tensor = shares[0]
    for share in shares[1:]:
        total = total + share
    return total


@torch.no_grad()
def sequence_kl(
    roles: Roles,
    exchanges: Sequence[Exchange],
    sampling: Sampling,
    micro_batch_size: int,
    device: torch.device,
    ranks: Ranks,
) -> list[float]:
    """Per exchange the sum over response tokens of log policy - log reference (k1)."""
    mine = exchanges[ranks.rank :: ranks.size]
    kl = [0.0] * len(mine)
    for chosen in micro_batches([len(one) for one in mine], range(len(mine)), micro_batch_size):
        batch = collate([mine[index] for index in chosen], sampling.pad_id, device)
        logprobs = roles.measure_policy(batch, sampling.temperature).logprobs
        sums = k1(logprobs, roles.reference(batch, sampling.temperature)).sum(dim=1)  # [B]; 0 beyond the response
        for index, value in zip(chosen, sums.tolist(), strict=True):
            kl[index] = value
    return interleaved(ranks.gather(kl))
