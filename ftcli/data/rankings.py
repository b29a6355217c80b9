"""Several answers to one prompt, ordered from best to worst."""

from __future__ import annotations

import math
from typing import Any

from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.values import is_number, kind_of, text_of

COLUMNS = ("candidates", "responses", "completions")
"""Where data sets keep the answers."""
TEXT_KEYS = ("content", "text", "answer", "response")
MEASURES = {"rank": 1, "score": -1}
"""What orders the answers, with the sign that makes lower better."""


def candidates_of(value: dict[str, Any], notes: RowNotes) -> list[dict[str, Any]]:
    """``[{"content", "rank"}]`` in the order of the row; rank 1 is the best, equal ranks are ties, and no rank is left out.

    The answers are objects with a text and a ``rank`` (lower is better) or a ``score`` (higher is better), or texts with a list
    of ``ranks`` or ``scores`` beside them. Texts alone are taken to be ordered, best first, noted as ``ranked_by_position``.
    """
    column = next(name for name in COLUMNS if value.get(name) is not None)
    items = value[column]
    if not isinstance(items, list):
        raise Refused(Reason.TYPE_ERROR, f"{column} is {kind_of(items)}, a list of answers needed")
    if len(items) < 2:
        raise Refused(Reason.TYPE_ERROR, f"{column}: {len(items) or 'no'} answer, at least 2 needed to rank them")
    texts = [_text(item, f"{column}[{index}]", notes) for index, item in enumerate(items)]
    if all(isinstance(item, dict) for item in items):
        order = _measured(items, column)
    elif any(isinstance(item, dict) for item in items):
        raise Refused(Reason.TYPE_ERROR, f"{column}: some answers are objects, others texts")
    else:
        order = _beside(value, len(items), notes)
    places = {level: place for place, level in enumerate(sorted(set(order)), start=1)}
    return [{"content": text, "rank": places[level]} for text, level in zip(texts, order, strict=True)]


def _text(item: Any, where: str, notes: RowNotes) -> str:
    if not isinstance(item, dict):
        return text_of(item, where, notes)
    key = next((key for key in TEXT_KEYS if item.get(key) is not None), None)
    if key is None:
        raise Refused(Reason.MISSING_FIELD, f"{where} has no text; its keys are {', '.join(item) or 'none'}")
    return text_of(item[key], f"{where}.{key}", notes)


def _measured(items: list[dict[str, Any]], column: str) -> list[float]:
    """The level of each answer by the measure that all of them have; lower is better."""
    found = [next((name for name in MEASURES if item.get(name) is not None), None) for item in items]
    missing = next((index for index, name in enumerate(found) if name is None), None)
    if missing is not None:
        raise Refused(Reason.MISSING_FIELD, f"{column}[{missing}] has no rank or score")
    name = found[0]
    if name is None or any(other != name for other in found):
        raise Refused(Reason.TYPE_ERROR, f"{column}: some answers have a rank, others a score")
    return _levels([item[name] for item in items], name, f"{column}: {name}")


def _beside(value: dict[str, Any], count: int, notes: RowNotes) -> list[float]:
    """The level of each text from the list beside them, or its position."""
    for name in MEASURES:
        levels = value.get(f"{name}s")
        if levels is None:
            continue
        if not isinstance(levels, list) or len(levels) != count:
            size = f"{len(levels)} long" if isinstance(levels, list) else kind_of(levels)
            raise Refused(Reason.TYPE_ERROR, f"{name}s is {size}, a list of {count} needed")
        return _levels(levels, name, f"{name}s")
    if isinstance(value.get("labels"), list):
        raise Refused(Reason.TYPE_ERROR, "labels beside the texts mark the steps of one answer; ranks or scores needed")
    notes.changed.add("ranked_by_position")
    return list(range(count))


def _levels(found: list[Any], name: str, where: str) -> list[float]:
    for level in found:
        if not is_number(level) or not math.isfinite(level):
            raise Refused(Reason.TYPE_ERROR, f"{where} is {level!r}, a number needed")
    return [MEASURES[name] * level for level in found]
