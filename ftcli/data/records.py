"""Raw rows on their way in, and the rows refused on that way, each with its place and its reason."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

RAW_BYTES = 4096
"""How much of a refused row is kept."""


class Reason(StrEnum):
    """Why a row was refused. The values are part of the output format."""

    PARSE_JSON = "parse_json"
    PARSE_CSV = "parse_csv"
    NOT_OBJECT = "not_object"
    ENCODING = "encoding"
    TRUNCATED_INPUT = "truncated_input"
    MISSING_FIELD = "missing_field"
    TYPE_ERROR = "type_error"
    ROLE_UNKNOWN = "role_unknown"
    ROLE_ORDER = "role_order"
    EMPTY_PROMPT = "empty_prompt"
    EMPTY_ANSWER = "empty_answer"
    SAME_ANSWERS = "same_answers"
    RULE = "rule"
    BOILERPLATE = "boilerplate"
    PII = "pii"
    LANGUAGE = "language"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NO_TRAINABLE_TOKENS = "no_trainable_tokens"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    CONTAMINATED = "contaminated"
    CONFLICT = "conflict"
    OVER_LIMIT = "over_limit"


MALFORMED = frozenset(
    {
        Reason.PARSE_JSON,
        Reason.PARSE_CSV,
        Reason.NOT_OBJECT,
        Reason.ENCODING,
        Reason.TRUNCATED_INPUT,
        Reason.MISSING_FIELD,
        Reason.TYPE_ERROR,
        Reason.ROLE_UNKNOWN,
        Reason.ROLE_ORDER,
    }
)
"""Reasons that speak of a broken file or a wrong format, not of a choice.

Only these count against ``max_reject_rate``.
"""


class Refused(Exception):
    """A step refuses a row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class RowNotes:
    """What the steps did to one row, or want a person to see in it. Filled by the steps, read by prep.

    ``changed`` holds names such as ``unicode`` or ``rule:noinput``, each once a row; ``flags`` holds ``(kind, detail)``, with
    details that are safe to show (never a secret in full).
    """

    changed: set[str] = field(default_factory=set)
    flags: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row. ``line`` counts from 1: the line where the row begins, or its position in formats without lines."""

    file: str
    line: int
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reject:
    """A refused row: where it came from, why, and its beginning as it was found."""

    file: str
    line: int
    reason: Reason
    detail: str
    raw: str

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "reason": str(self.reason),
            "detail": printable(self.detail),
            "raw": shorten(self.raw),
        }

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}: {printable(self.detail)}"


def printable(text: str) -> str:
    """``text`` with lone surrogates (bytes that were no UTF-8, or broken ``\\ud800`` escapes) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(raw: str) -> str:
    """The first `RAW_BYTES` bytes of ``raw`` in UTF-8, as whole characters."""
    return raw[:RAW_BYTES].encode("utf-8", "backslashreplace")[:RAW_BYTES].decode("utf-8", "ignore")


def raw_json(value: Any) -> str:
    """A row read from a file, as text for a reject."""
    return json.dumps(value, ensure_ascii=False, default=str)
