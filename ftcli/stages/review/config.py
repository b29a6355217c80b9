"""Settings of the review stage."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftcli.core.config import StageConfig

TIE, NO_REASON, OTHER = "reviewers disagree", "no reason given", "another reason"
"""Why a row is out, where no reviewer gave one of the reasons offered."""


class ReviewConfig(StageConfig):
    mode: Literal["all", "sample", "none"] = "all"
    """all: people judge every row; sample: they judge some, and the others pass if enough of those are right; none: nobody looks,
    and the report and every row say so."""
    sample_size: int = Field(default=50, ge=1)
    """How many rows people judge in mode sample, drawn from all splits; a larger sample contains the smaller one."""
    min_accept_rate: float | None = Field(default=None, gt=0, le=1)
    """Fail if the share of rows accepted as they are may be lower; edited rows do not count. The lower end of its 95 % Wilson
    interval must reach this; where every row was judged, the share itself."""
    overlap: int = Field(default=1, ge=1)
    """How many people judge each row. The majority decides; a row that as many reject as keep is rejected."""
    guidelines: str = ""
    """What the reviewers are told, shown beside each row."""
    reasons: tuple[str, ...] = ("wrong", "incomplete", "unclear", "unsafe", "off topic", "badly written")
    """What a reviewer is asked to reject a row for; whatever else they write is kept, and counted as another reason."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        fields = type(self).model_fields
        idle = {
            "all": ("sample_size",),
            "sample": (),
            "none": ("sample_size", "min_accept_rate", "overlap", "guidelines", "reasons"),
        }[self.mode]
        given = [name for name in idle if getattr(self, name) != fields[name].default]
        if given:
            raise ValueError(f"mode {self.mode} uses no {' and no '.join(given)}")
        if self.mode == "sample" and self.min_accept_rate is None:
            raise ValueError("mode sample needs min_accept_rate: it decides over the rows that nobody sees")
        if not self.reasons or any(not reason.strip() for reason in self.reasons):
            raise ValueError("reasons: give at least one, and none of them empty")
        if len(set(self.reasons)) < len(self.reasons) or {TIE, NO_REASON, OTHER} & set(self.reasons):
            raise ValueError(f"reasons must differ from each other, from {TIE!r}, {NO_REASON!r} and {OTHER!r}")
        return self
