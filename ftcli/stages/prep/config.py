"""Settings of the prep stage."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ftcli.core.config import ExecOnly, StageConfig, nearest
from ftcli.data.converters import FIELDS, FormatName
from ftcli.data.rules import RULES

Action = Literal["off", "flag", "redact", "drop"]


class PrepConfig(StageConfig):
    format: Literal["auto", "mixed", FormatName] = "auto"
    """What the columns mean; auto finds the one format that fits each source, mixed asks row by row."""
    map: dict[str, str] = Field(default_factory=dict)
    """Unusual column names, as {format's column: your column}, e.g. {prompt: question, completion: reply}."""
    weights: dict[str, float] = Field(default_factory=dict)
    """How often the train rows of a source are used, as {label: weight}: 2 takes each twice, 0.5 a drawn half."""

    clean_unicode: bool = True
    """Repair wrongly decoded text, compose accents."""
    clean_control: bool = True
    """Remove control, zero-width and direction characters."""
    clean_html: bool = True
    """Replace HTML by its text; code, and rows about HTML, stay as they are."""
    clean_whitespace: bool = True
    """Remove trailing spaces and surplus blank lines."""
    rules: tuple[str, ...] = ("alpaca",)
    """Packs of rules for known defects of instruction data; [] for none."""
    boilerplate: Literal["off", "flag", "drop"] = "flag"
    """What to do with answers that speak of themselves ("As an AI language model ...")."""
    pii: Action = "flag"
    """Mail addresses, phone, card, account and social security numbers, IP addresses: flag them, redact them to
    placeholders such as <EMAIL_1>, or drop the row. Names are not looked for."""
    secrets: Action = "redact"
    """Keys, tokens, passwords and private keys."""
    detect_language: bool = True
    """Find each row's language, for the report and for keep_languages."""
    keep_languages: tuple[str, ...] = ()
    """Keep only rows in these languages, as ISO 639-1 codes; none means all."""
    min_language_probability: float = Field(default=0.5, ge=0, le=1)
    """How sure keep_languages must be of a row's language to keep it."""
    min_answer_chars: int = Field(default=1, ge=1)
    """Refuse rows with a shorter answer."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest row, in tokens of the model given as input; unset means any."""
    too_long: Literal["reject", "truncate", "keep"] = "reject"
    """Rows over max_length: refuse them, cut the end of the last answer, or keep and only count them."""

    near_duplicates: Literal["remove", "flag", "off"] = "remove"
    """Rows that say nearly the same as another one, by the Jaccard similarity of their character 5-grams."""
    near_threshold: float = Field(default=0.9, gt=0.5, le=1)
    """From this similarity on, a row is a near-duplicate."""
    flag_threshold: float = Field(default=0.8, gt=0.5, le=1)
    """From this similarity on, pairs are listed in duplicates.jsonl."""
    number_guard: bool = True
    """Rows whose numbers differ are no near-duplicates."""
    allow_mass_dedup: bool = False
    """Go on when near-duplicates take more than half of a source, or one cluster over 5 % of all rows."""
    containment: float = Field(default=0.5, gt=0, le=1)
    """Share of an evaluation item's word 3-grams that makes a row contaminated by it (input `against`)."""
    contamination: Literal["drop", "flag"] = "drop"
    """What to do with contaminated rows."""
    conflicts: Literal["report", "drop_minority", "drop_all", "keep_first"] = "report"
    """Rows that answer the same prompt differently."""

    limit: int | None = Field(default=None, ge=1)
    """Keep at most N rows, drawn at random after duplicates are gone; unset keeps all."""
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the rows for the validation split."""
    test_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the rows for the test split."""
    group_threshold: float = Field(default=0.7, gt=0.3, le=1)
    """Prompts at least this similar share a split."""
    group_by: str | None = None
    """A column (user, document, conversation) whose rows must share a split."""
    stratify_by: str | None = None
    """A column, or language or source, whose values every split should have in equal shares."""
    output_format: Literal["jsonl", "parquet"] = "jsonl"
    """File type of the splits."""

    max_reject_rate: float = Field(default=0.05, ge=0, le=1)
    """Fail if a larger share of the rows is malformed (no JSON, missing or wrong columns); duplicates do not count."""
    strict: bool = False
    """Stop at the first malformed row."""
    min_rows: int = Field(default=1, ge=1)
    """Gate: fail with fewer rows at the end."""
    max_near_duplicate_rate: float | None = Field(default=None, ge=0, le=1)
    """Gate: fail if a larger share of the rows is near-duplicates."""
    max_conflict_rate: float | None = Field(default=None, ge=0, le=1)
    """Gate: fail if a larger share of the prompts has conflicting answers."""
    max_auc: float | None = Field(default=None, ge=0.5, le=1)
    """Gate: fail if a classifier tells the prompts from those of `reference` better than this (0.5 is not at all)."""

    workers: Annotated[int | None, ExecOnly(), Field(ge=1)] = None
    """Processes that read and clean; unset takes as many as the machine has cores, one for small sources."""

    executor: Annotated[Literal["here", "processes", "ray", "slurm"], ExecOnly()] = "here"
    """Where rows are read and cleaned: in this stage's own processes, or by datatrove (install ftcli[scale]) in tasks."""
    tasks: Annotated[int, ExecOnly(), Field(ge=1)] = 8
    """Parts of the work under another executor than here."""
    slurm_partition: Annotated[str | None, ExecOnly()] = None
    """Partition of the Slurm cluster."""
    slurm_time: Annotated[str, ExecOnly()] = "04:00:00"
    """Time limit of a Slurm task."""

    @field_validator("map")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for ours in columns:
            if ours not in FIELDS:
                raise ValueError(
                    f"no format reads a column {ours!r}; {nearest(ours, FIELDS) or 'known: ' + ', '.join(FIELDS)}"
                )
        return columns

    @field_validator("weights")
    @classmethod
    def _positive_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        for label, weight in weights.items():
            if not 0 < weight <= 100:
                raise ValueError(f"{label}: {weight:g} is no weight above 0 and up to 100")
        return weights

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in RULES:
                raise ValueError(f"unknown {name!r}; {nearest(name, RULES) or 'known: ' + ', '.join(RULES)}")
        return names

    @field_validator("keep_languages")
    @classmethod
    def _language_codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if not re.fullmatch(r"[a-z]{2,3}", code):
                raise ValueError(f"{code!r} is no language code such as en or de")
        return codes

    @model_validator(mode="after")
    def _is_consistent(self) -> PrepConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share together must be below 1, or nothing is left to train on")
        if self.flag_threshold > self.near_threshold:
            raise ValueError("flag_threshold must not be above near_threshold")
        if self.keep_languages and not self.detect_language:
            raise ValueError("keep_languages needs detect_language")
        if self.too_long != "reject" and self.max_length is None:
            raise ValueError(f"too_long {self.too_long} needs max_length")
        return self
