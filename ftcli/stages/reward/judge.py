"""Score held-out comparisons, for the statistics of `ftcli.rl.reward_card`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftcli.core.errors import Diverged
from ftcli.rl.judged import Judged
from ftcli.rl.preferences import Comparison
from ftcli.rl.reward_model import RewardModel


def judge(model: RewardModel, comparisons: Sequence[Comparison], micro_batch_size: int) -> list[Judged]:
    """Each of ``comparisons`` with its answers' scores and lengths. Raises `Diverged` where a score is not finite."""
    exchanges = [exchange for one in comparisons for exchange in one.exchanges]
    scores = model.score_exchanges(exchanges, micro_batch_size)
    if not all(map(math.isfinite, scores)):
        raise Diverged(
            "the reward model's held-out scores are not finite", "lower learning_rate; with precision bf16, try fp32"
        )
    left = iter(scores)
    return [
        Judged(
            [next(left) for _ in one.exchanges],
            [len(exchange.response) for exchange in one.exchanges],
            one.pairs,
            one.ties,
            source_of(one),
        )
        for one in comparisons
    ]


def source_of(comparison: Comparison) -> str:
    """Where the prompt's row was read from: the label of its source where prep had several, else its file, if it says so."""
    meta = comparison.exchanges[0].row.get("meta") or {}
    return str(meta.get("source") or meta.get("file") or "")
