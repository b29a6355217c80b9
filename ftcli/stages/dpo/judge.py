"""How well a model's implicit reward, ``beta (log p - log p of the reference)``, orders held-out pairs, beside what the
lengths of the answers alone would achieve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ftcli.rl.judged import accuracy_interval, right

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class HeldOut:
    """Pairs, each column [pairs]: the number of its prompt, tokens of the chosen and the rejected answer, and their
    log-probabilities under the reference."""

    prompt: Array
    chosen_tokens: Array
    rejected_tokens: Array
    ref_chosen: Array
    ref_rejected: Array


def pair_losses(
    chosen: Array, rejected: Array, pairs: HeldOut, *, beta: float, loss_type: str, label_smoothing: float
) -> Array:
    """The losses [pairs] that `ftcli.training.pair_trainer.loss_terms` describes, of log-ratios ``chosen`` and ``rejected``."""
    if loss_type == "ipo":
        return (chosen / pairs.chosen_tokens - rejected / pairs.rejected_tokens - 1 / (2 * beta)) ** 2
    margin = beta * (chosen - rejected)
    if loss_type == "hinge":
        return np.maximum(0.0, 1 - margin)
    wrong_way: Array = np.logaddexp(0.0, -margin) + label_smoothing * margin  # as -log s(-m) = -log s(m) + m
    return wrong_way


def judge(
    pairs: HeldOut, chosen: Array, rejected: Array, *, beta: float, loss_type: str, label_smoothing: float
) -> dict[str, float]:
    """Of a model that gives the answers the log-probabilities ``chosen`` and ``rejected`` [pairs].

    ``accuracy`` counts pairs whose better answer has the higher reward (ties half), with its 95 % interval over prompts;
    ``likelihood_accuracy`` those whose better answer is likelier as it is, reference aside.
    """
    up, down = chosen - pairs.ref_chosen, rejected - pairs.ref_rejected
    correct = right(up - down)
    found = accuracy_interval(correct, pairs.prompt)
    longer = right(pairs.chosen_tokens - pairs.rejected_tokens)
    losses = pair_losses(up, down, pairs, beta=beta, loss_type=loss_type, label_smoothing=label_smoothing)
    return {
        "loss": float(losses.mean()),
        "accuracy": float(correct.mean()),
        "accuracy_low": found.low,
        "accuracy_high": found.high,
        "margin": float(beta * (up - down).mean()),
        "chosen": float(beta * up.mean()),
        "rejected": float(beta * down.mean()),
        "likelihood_accuracy": float(right(chosen - rejected).mean()),
        "longer_wins_accuracy": float(longer.mean()),
        "shorter_wins_accuracy": float(1 - longer.mean()),
    }
