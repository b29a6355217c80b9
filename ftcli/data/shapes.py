"""What the columns of raw rows look like from afar: enough to tell formats apart, not enough to convert a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ftcli.data.rankings import COLUMNS as CANDIDATES
from ftcli.data.values import as_label, is_number


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or is_number(value)


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_prompt(value: Any) -> bool:
    return _is_text(value) or _is_turns(value)


def _is_answer(value: Any) -> bool:
    return _is_prompt(value) or isinstance(value, dict)


def _is_candidates(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) or _is_text(item) for item in value)


SHAPES: Mapping[str, Callable[[Any], bool]] = {
    "prompt": _is_prompt,
    "completion": _is_answer,
    "chosen": _is_answer,
    "rejected": _is_answer,
    "messages": _is_turns,
    "conversations": _is_turns,
    "label": lambda value: as_label(value) is not None,
    "kto_tag": lambda value: as_label(value) is not None,
    **dict.fromkeys(CANDIDATES, _is_candidates),
}
"""What the value of a column looks like from afar, enough to tell formats apart; columns not named here hold text."""


def has_shape(value: dict[str, Any], column: str) -> bool:
    return SHAPES.get(column, _is_text)(value.get(column))
