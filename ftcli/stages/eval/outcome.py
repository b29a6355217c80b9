"""What one model did on the rows: plain data that survives a crash in scratch and that all figures are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer: its text, its token ids with the end-of-turn token, and why it ended (``stop`` or ``length``)."""

    text: str
    ids: list[int]
    finish_reason: str


@dataclass(frozen=True)
class Outcome:
    """``nll`` and ``tokens`` of the reference on each scored row; answers on each answered row.

    ``sampled`` holds the same number of answers for every row, row after row. The scores are the reward model's, one for each
    answer; empty without a reward model.
    """

    nll: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    greedy: list[Answer] = field(default_factory=list)
    sampled: list[Answer] = field(default_factory=list)
    greedy_scores: list[float] = field(default_factory=list)
    sampled_scores: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        answers = {name: [Answer(**item) for item in data[name]] for name in ("greedy", "sampled")}
        return cls(**{**data, **answers})
