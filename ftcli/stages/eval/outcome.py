"""What one model did on the rows: plain data that all figures are computed from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """One answer: its text, its token ids with the end-of-turn token, and why it ended (``stop`` or ``length``)."""

    text: str
    ids: list[int]
    finish_reason: str


@dataclass(frozen=True)
class Outcome:
    """``nll`` and ``tokens`` of the reference on each scored row, and its ``sizes`` in bytes; answers on each answered row.

    ``sampled`` holds the same number of answers for every row, row after row. The scores are the reward model's, one for each
    answer; empty without a reward model. With ``whole_texts``, ``nll`` is that of texts without a prompt, and the bytes of a first
    token that nothing predicts do not count.
    """

    nll: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    greedy: list[Answer] = field(default_factory=list)
    sampled: list[Answer] = field(default_factory=list)
    greedy_scores: list[float] = field(default_factory=list)
    sampled_scores: list[float] = field(default_factory=list)
    whole_texts: bool = False
