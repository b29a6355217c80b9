"""A learned reward: a backbone, whole or an adapter on a frozen one, plus scalar head, read at the last response token.

Training, held-out accuracy, PPO and evaluation all score through `score_batch` on the layout of `ftcli.rl.sequences`,
because a model trained at one position and read at another is off its distribution (Hugging Face's sequence
classifiers take the last token that is not the padding id: with padding id = end-of-turn id that skips the very token
trained on).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact
from ftcli.models.dropout import disable_dropout
from ftcli.models.generate import split_model
from ftcli.models.heads import ScalarHead, load_head
from ftcli.models.load import load_model
from ftcli.models.packing import pack, takes_packed_rows, unpack
from ftcli.rl.sequences import Batch, Exchange, collate, micro_batches

STATS_FILE = "reward_stats.json"
"""Held-out accuracy and score statistics of a reward model, in its folder."""


def hidden_states(backbone: Any, batch: Batch) -> Tensor:
    """Last hidden states [B, T, H] of right-padded rows, without attention mask: see `ftcli.rl.sequences`.

    A backbone that takes packed rows computes no padding; its places then hold 0.
    """
    if not takes_packed_rows(backbone):
        hidden: Tensor = backbone(input_ids=batch.ids, use_cache=False).last_hidden_state
        return hidden
    packed = backbone(**pack(batch.ids, batch.lengths), use_cache=False).last_hidden_state[0]  # [N, H]
    return unpack(packed, batch.lengths, batch.ids.shape[1])


def score_batch(backbone: Any, head: ScalarHead, batch: Batch) -> Tensor:
    """Scores [B]: the head at each row's last response token."""
    hidden = hidden_states(backbone, batch)  # [B, T, H]
    rows = torch.arange(len(batch.ids), device=hidden.device)
    scores: Tensor = head(hidden[rows, batch.last])  # [B]
    return scores


@dataclass(frozen=True)
class RewardModel:
    """A causal language model (usually a `PeftModel`) whose active adapter and ``head`` give the score."""

    model: Any
    head: ScalarHead
    pad_id: int

    def score(self, batch: Batch) -> Tensor:
        """Scores [B], with gradient where that is on."""
        return score_batch(split_model(self.model)[0], self.head, batch)

    @torch.no_grad()
    def score_exchanges(self, exchanges: Sequence[Exchange], micro_batch_size: int = 16) -> list[float]:
        """Raw scores of ``exchanges``, in their order."""
        device = self.head.weight.device
        scores = [0.0] * len(exchanges)
        for chosen in micro_batches([len(one) for one in exchanges], range(len(exchanges)), micro_batch_size):
            found = self.score(collate([exchanges[index] for index in chosen], self.pad_id, device))
            for index, value in zip(chosen, found.tolist(), strict=True):
                scores[index] = value
        return scores


def load_reward_model(artifact: Artifact, dtype: torch.dtype, device: torch.device, pad_id: int) -> RewardModel:
    """The reward model of a `Kind.REWARD` artifact, in evaluation mode: a whole model with its head, or an adapter with
    its head on its own copy of the base.

    Raises `UsageError` where the folder holds no reward model.
    """
    head = load_head(artifact.path, device)
    own = "config.json" if artifact.base is None else "adapter_config.json"
    if not (artifact.path / own).is_file():
        raise UsageError(f"{artifact.ref}: no {own}, so this is no reward model", "give the output of `ftcli reward`")
    model = load_model(artifact, dtype, device).eval()
    disable_dropout(model)
    return RewardModel(model, head, pad_id)


def read_stats(folder: Path) -> dict[str, Any]:
    """The reward model's reward_stats.json. Raises `UsageError` where it is missing."""
    path = folder / STATS_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: no {STATS_FILE}, so this is no reward model", "give the output of `ftcli reward`")
    stats: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stats
