"""Sample responses and measure them: what PPO needs to know of a rollout before it updates anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftcli.models.generate import generate
from ftcli.rl.kl import k1
from ftcli.rl.roles import Roles
from ftcli.rl.sequences import Exchange, collate, micro_batches


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
    """A rollout ready to learn from. ``scores`` [B] are raw, ``shaped`` [B] what stands on the last token; the rest
    is [B, R]."""

    exchanges: list[Exchange]
    scores: Tensor
    shaped: Tensor
    measured: Measured
    advantages: Tensor
    returns: Tensor


def sample_exchanges(
    roles: Roles, prompts: Sequence[list[int]], keys: Sequence[str], sampling: Sampling, seed: int
) -> list[Exchange]:
    """One response of the policy to each of ``prompts``; ``keys`` and ``seed`` decide the draws
    (`ftcli.models.generate`)."""
    answers = generate(
        roles.sampler(),
        prompts,
        keys,
        stop_ids=sampling.stop_ids,
        pad_id=sampling.pad_id,
        max_new_tokens=sampling.response_length,
        temperature=sampling.temperature,
        seed=seed,
        batch_size=sampling.batch_size,
    )
    return [
        Exchange(prompt, answer.ids, answer.finish_reason == "stop")
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


@torch.no_grad()
def measure(
    roles: Roles, exchanges: Sequence[Exchange], groups: Sequence[list[int]], sampling: Sampling, device: torch.device
) -> Measured:
    """Log-probs, reference log-probs, values and entropies of ``exchanges``, computed in the micro-batches ``groups``.

    They are recomputed in the training layout and not taken from the sampler: in bfloat16 the two differ by up to 0.2.
    """
    width = max(len(one.response) for one in exchanges)
    mask = torch.zeros(len(exchanges), width, dtype=torch.bool)
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
        mask[chosen, :micro_width] = batch.mask.cpu()
        for name, part in parts.items():
            whole = found.setdefault(name, torch.zeros(mask.shape, dtype=part.dtype))
            whole[chosen, :micro_width] = part.cpu()
    return Measured(mask=mask, **found)


@torch.no_grad()
def sequence_kl(
    roles: Roles, exchanges: Sequence[Exchange], sampling: Sampling, micro_batch_size: int, device: torch.device
) -> list[float]:
    """Per exchange the sum over response tokens of log policy - log reference (k1)."""
    kl = [0.0] * len(exchanges)
    for chosen in micro_batches([len(one) for one in exchanges], range(len(exchanges)), micro_batch_size):
        batch = collate([exchanges[index] for index in chosen], sampling.pad_id, device)
        logprobs = roles.measure_policy(batch, sampling.temperature).logprobs
        sums = k1(logprobs, roles.reference(batch, sampling.temperature)).sum(dim=1)  # [B]; 0 beyond the response
        for index, value in zip(chosen, sums.tolist(), strict=True):
            kl[index] = value
    return kl
