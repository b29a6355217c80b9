"""Single values of raw rows: what kind they are, and texts and truth values made of them.

Readers of tables and of JSON disagree about types, so a text may come as a number and a truth value as a text. What can be
taken without a guess is taken, and counted where it changed; the rest is refused.
"""

from __future__ import annotations

import math
from typing import Any

from ftcli.data.records import Reason, Refused, RowNotes

KINDS = {
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
LABELS = {"true": True, "false": False, "1": True, "0": False}


def kind_of(value: Any) -> str:
    return KINDS.get(type(value), type(value).__name__)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def text_of(value: Any, where: str, notes: RowNotes) -> str:
    """``value`` as text. A number becomes its shortest digits, noted as ``number_as_text``.

    For integers these are the digits of the source; a fraction loses final zeros (7.10 becomes 7.1). Numbers that Python
    writes with an exponent, and infinities, are refused: their source could have looked like anything.
    """
    if isinstance(value, str):
        return value
    if not is_number(value):
        raise Refused(Reason.TYPE_ERROR, f"{where} is {kind_of(value)}, text needed")
    if not math.isfinite(value) or "e" in repr(value):
        raise Refused(Reason.TYPE_ERROR, f"{where} is the number {value!r}, text needed: write it in quotes")
    notes.changed.add("number_as_text")
    return repr(value)


def wanted_text(value: dict[str, Any], column: str, notes: RowNotes, *, optional: bool = False) -> str:
    """The text in ``column``; an optional one may be absent or null and then is empty."""
    found = value.get(column)
    return "" if found is None and optional else text_of(found, column, notes)


def as_label(value: Any) -> bool | None:
    """``value`` as a truth value: a boolean, 0 or 1, or one of the texts true, false, 0 and 1; else None."""
    if isinstance(value, str):
        return LABELS.get(value.strip().lower())
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    return None
