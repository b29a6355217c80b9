"""What a policy answers on fixed held-out prompts, before training and after, with the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ftcli.core.errors import StageFailed
from ftcli.data.rows import Row, prompt_of
from ftcli.rl.ppo import Score
from ftcli.rl.rewards import paired_change
from ftcli.rl.roles import Roles
from ftcli.rl.rollout import Sampling, sample_exchanges, sequence_kl

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


CHECKED = 8
"""Answers on which the reference is compared with the starting policy."""


@dataclass(frozen=True)
class Answer:
    """One sampled answer: its tokens, whether it ended, the raw score, and log policy - log reference over all its
    tokens."""

    response: list[int]
    ended: bool
    score: float
    kl: float


@dataclass(frozen=True)
class Exam:
    """Answers of one policy to the held-out prompts, in their order."""

    answers: list[Answer]

    @property
    def scores(self) -> list[float]:
        return [answer.score for answer in self.answers]

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(answer) for answer in self.answers]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> Exam:
        return cls([Answer(**answer) for answer in data])

    def summary(self) -> dict[str, float]:
        count = len(self.answers)
        return {
            "score": sum(self.scores) / count,
            "kl": sum(answer.kl for answer in self.answers) / count,
            "length": sum(len(answer.response) for answer in self.answers) / count,
            "eos_rate": sum(answer.ended for answer in self.answers) / count,
        }


def examine(
    roles: Roles,
    score: Score,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    seed: int,
    micro_batch_size: int,
    device: torch.device,
    *,
    at_start: bool,
) -> Exam:
    """Sample one answer to each of ``prompts``; equal policies give equal answers.

    ``at_start``: the policy still is its own reference, so every KL is 0. That is checked on the first answers, and
    `StageFailed` raised where it does not hold.
    """
    keys = [f"held-out/{place}" for place in range(len(prompts))]
    exchanges = sample_exchanges(roles, prompts, keys, sampling, seed)
    measured = exchanges[:CHECKED] if at_start else exchanges
    kl = sequence_kl(roles, measured, sampling, micro_batch_size, device)
    if at_start:
        check_reference(kl)
        kl = [0.0] * len(exchanges)
    return Exam(
        [
            Answer(one.response, one.ended, value, divergence)
            for one, value, divergence in zip(exchanges, score(exchanges), kl, strict=True)
        ]
    )


def check_reference(kl: Sequence[float]) -> None:
    """The reference must be the starting policy exactly; a wrong one (say, the bare base) would pull the policy away
    from it."""
    largest = max(map(abs, kl))
    if largest > 0:
        raise StageFailed(
            f"the reference is not the starting policy: before any update their log-probs differ by {largest:g} over a response",
            "set precision to fp32; if it stays, report it as a bug",
        )


def compare(before: Exam, after: Exam) -> dict[str, float | int | None]:
    """Both summaries and the paired change of the score, under the names that go to stage.json."""
    change = paired_change(before.scores, after.scores)
    first, second = before.summary(), after.summary()
    return {
        "eval/prompts": len(before.answers),
        **{f"eval/{name}_before": value for name, value in first.items() if name != "kl"},
        **{f"eval/{name}_after": value for name, value in second.items() if name != "kl"},
        "eval/kl": second["kl"],
        "eval/score_change": change.mean,
        "eval/score_change_se": change.standard_error,
        "eval/score_change_z": change.z,
    }


def sample_records(
    rows: Sequence[Row], before: Exam, after: Exam, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Rows of samples.jsonl: each prompt with its answers before and after."""

    def shown(answer: Answer) -> dict[str, Any]:
        return {
            "text": tokenizer.decode(answer.response, skip_special_tokens=True),
            "tokens": len(answer.response),
            "finish_reason": "stop" if answer.ended else "length",
            "score": answer.score,
            "kl": answer.kl,
        }

    return [
        {"id": row["id"], "prompt": prompt_of(row), "before": shown(first), "after": shown(second)}
        for row, first, second in zip(rows, before.answers, after.answers, strict=True)
    ]
