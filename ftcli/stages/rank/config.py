"""Settings of the rank stage."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftcli.core.config import StageConfig


class RankConfig(StageConfig):
    answers_per_prompt: int = Field(default=4, ge=2, le=8)
    """Most answers of a prompt that people order at once. Where there are more, some of each model are drawn."""
    prompts: int | None = Field(default=None, ge=1)
    """Ask about so many prompts, drawn at random; unset asks about all."""
    splits: tuple[Literal["train", "validation", "test"], ...] = Field(
        default=("train", "validation", "test"), min_length=1
    )
    """Ask about prompts of these splits only. Pairs go to the split of their prompt."""
    guidelines: str = ""
    """What graders are to look at, shown beside every question."""
    criteria: tuple[str, ...] = ()
    """Named aspects that graders may also judge, for example helpful or correct."""
    overlap: int = Field(default=1, ge=1)
    """Graders that judge each prompt. With 2 or more, agreement can be measured."""
    min_judgements: int | None = Field(default=None, ge=1)
    """Go on as soon as there are so many judgements; unset waits until each prompt has been judged overlap times."""
    repeat_share: float = Field(default=0.1, ge=0, le=1 / 3)
    """Share of each grader's prompts that come a second time with the sides swapped, which shows how steady a grader is."""
    min_agreement: float = Field(default=0.0, ge=0, le=1)
    """Leave out pairs whose winner a smaller share of its graders preferred."""
    margin: Literal["none", "strength"] = "none"
    """strength writes how much better the graders found the winner (1 to 7) as meta.margin, for reward with use_margin."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.margin == "strength" and self.answers_per_prompt != 2:
            raise ValueError("margin strength is asked of two answers: it needs answers_per_prompt 2")
        if len(set(self.criteria)) < len(self.criteria) or not all(map(str.strip, self.criteria)):
            raise ValueError("criteria: names that differ, none of them empty, are needed")
        return self
