"""How good a reward model is on held-out pairs, beside what the length of an answer alone would achieve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ftcli.rl.preferences import Comparison, wilson_interval, wins
from ftcli.rl.reward_model import RewardModel
from ftcli.rl.rewards import score_summary


def judge(model: RewardModel, comparisons: Sequence[Comparison], micro_batch_size: int) -> dict[str, Any]:
    """Pairwise accuracy (ties count half) with its 95 % Wilson interval, log-loss, two length baselines, score
    statistics.

    The interval takes pairs as independent; pairs of one prompt are not quite, so it is a little narrow where prompts
    have many.
    """
    exchanges = [exchange for one in comparisons for exchange in one.exchanges]
    scores = iter(model.score_exchanges(exchanges, micro_batch_size))
    by_prompt = [[next(scores) for _ in one.exchanges] for one in comparisons]
    margins = [
        found[w] - found[loser] for found, one in zip(by_prompt, comparisons, strict=True) for w, loser in one.pairs
    ]
    longer = [
        len(one.exchanges[winner].response) - len(one.exchanges[loser].response)
        for one in comparisons
        for winner, loser in one.pairs
    ]
    right, longer_right, total = wins(margins), wins(longer), len(margins)
    low, high = wilson_interval(right, total)
    return {
        "pairs": total,
        "prompts": len(comparisons),
        "accuracy": right / total,
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": sum(_softplus(-margin) for margin in margins) / total,
        "longer_wins_accuracy": longer_right / total,
        "shorter_wins_accuracy": 1 - longer_right / total,
        "chosen": score_summary(_distinct(by_prompt, comparisons, side=0)),
        "rejected": score_summary(_distinct(by_prompt, comparisons, side=1)),
    }


def _distinct(by_prompt: list[list[float]], comparisons: Sequence[Comparison], side: int) -> list[float]:
    """Scores of the answers that win (side 0) or lose (side 1) some pair, each answer once."""
    return [
        scores[index]
        for scores, one in zip(by_prompt, comparisons, strict=True)
        for index in sorted({pair[side] for pair in one.pairs})
    ]


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
