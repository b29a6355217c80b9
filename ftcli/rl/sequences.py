"""One layout for everything that PPO and reward models compute: rows of ``prompt + response`` ids, padded on the
right.

Masks and positions come from lengths and never from comparing ids with the padding id, which for many models is the
end-of-turn id itself. Causal attention does not see what stands to the right, so no attention mask is needed, and
positions are 0, 1, 2, ... Old, new and reference log-probs, values and reward scores are all read from this one
layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """A prompt in token ids, and the row that it comes from, which reward functions may look into."""

    ids: list[int]
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exchange:
    """A prompt and one response in token ids.

    A response that ended has its end-of-turn token as the last one; ``ended`` False means that it was cut at its
    length limit. ``row`` is its prompt's; ``sampler_logprobs`` are the log-probs of the response's tokens as whoever
    sampled them computed them, where that was not this process.
    """

    prompt: list[int]
    response: list[int]
    ended: bool = True
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    sampler_logprobs: list[float] | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Batch:
    """Right-padded exchanges: ``ids`` [B, T], ``prompt_lengths`` [B], ``response_lengths`` [B] (R is the longest)."""

    ids: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens [B] of each row."""
        return self.prompt_lengths + self.response_lengths

    @cached_property
    def mask(self) -> Tensor:
        """[B, R], True at response tokens (end-of-turn token included)."""
        width = int(self.response_lengths.max())
        return torch.arange(width, device=self.ids.device) < self.response_lengths[:, None]

    @cached_property
    def predictors(self) -> tuple[Tensor, Tensor]:
        """Rows [N] and columns [N] of the positions that predict the N response tokens, in the order of ``mask``."""
        rows, offsets = self.mask.nonzero(as_tuple=True)
        return rows, self.prompt_lengths[rows] - 1 + offsets

    @property
    def targets(self) -> Tensor:
        """Ids [N] of the response tokens."""
        rows, columns = self.predictors
        return self.ids[rows, columns + 1]

    @property
    def last(self) -> Tensor:
        """Columns [B] of each row's last response token."""
        return self.lengths - 1

    def spread(self, values: Tensor) -> Tensor:
        """Values [N] of the response tokens as [B, R], zero where ``mask`` is False."""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)


def collate(exchanges: Sequence[Exchange], pad_id: int, device: torch.device | None = None) -> Batch:
    """Pad ``exchanges`` on the right. Raises ValueError where a prompt or a response is empty: nothing would predict
    or be scored."""
    if any(not exchange.prompt or not exchange.response for exchange in exchanges):
        raise ValueError("a prompt and its response need at least one token each")
    longest = max(len(exchange) for exchange in exchanges)
    rows = [[*one.prompt, *one.response, *[pad_id] * (longest - len(one))] for one in exchanges]
    return Batch(
        ids=torch.tensor(rows, device=device),  # [B, T]
        prompt_lengths=torch.tensor([len(one.prompt) for one in exchanges], device=device),  # [B]
        response_lengths=torch.tensor([len(one.response) for one in exchanges], device=device),  # [B]
    )


def micro_batches(
    lengths: Sequence[int], chosen: Sequence[int], size: int, max_tokens: int | None = None
) -> list[list[int]]:
    """Cut the ``chosen`` indices into groups of at most ``size`` whose ``lengths`` are alike, so that little is
    padding. Rows times longest row is at most ``max_tokens``, except for a row that is longer by itself."""
    groups: list[list[int]] = []
    for index in sorted(chosen, key=lambda index: (lengths[index], index)):
        group = groups[-1] if groups else []
        fits = max_tokens is None or (len(group) + 1) * lengths[index] <= max_tokens
        if group and len(group) < size and fits:
            group.append(index)
        else:
            groups.append([index])
    return groups
