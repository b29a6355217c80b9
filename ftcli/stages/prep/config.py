"""Settings of the prep stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ftcli.core.config import StageConfig, nearest
from ftcli.data.formats import FIELDS, FormatName


class PrepConfig(StageConfig):
    format: Literal["auto", FormatName] = "auto"
    """What the columns mean; auto finds the one format that fits the first rows."""
    map: dict[str, str] = Field(default_factory=dict)
    """Unusual column names, as {format's column: your column}, e.g. {prompt: question, completion: reply}."""
    clean_unicode: bool = True
    """Repair wrongly decoded text, compose accents."""
    clean_control: bool = True
    """Remove control, zero-width and direction characters."""
    clean_html: bool = True
    """Replace HTML by its text; code, and rows about HTML, stay as they are."""
    clean_whitespace: bool = True
    """Remove trailing spaces and surplus blank lines."""
    limit: int | None = Field(default=None, ge=1)
    """Keep at most N rows, drawn at random after duplicates are gone; unset keeps all."""
    max_row_tokens: int | None = Field(default=None, ge=1)
    """Refuse rows with more tokens, counted with the model given as input; unset refuses none."""
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the rows for the validation split."""
    test_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the rows for the test split."""
    max_reject_rate: float = Field(default=0.05, ge=0, le=1)
    """Fail if a larger share of the rows is malformed (no JSON, missing or wrong columns); duplicates do not count."""

    @field_validator("map")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for ours in columns:
            if ours not in FIELDS:
                raise ValueError(
                    f"no format reads a column {ours!r}; {nearest(ours, FIELDS) or 'known: ' + ', '.join(FIELDS)}"
                )
        return columns

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> PrepConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share together must be below 1, or nothing is left to train on")
        return self
