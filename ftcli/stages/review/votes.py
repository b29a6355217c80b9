"""Judgements on their way in, from a file or the desk: each is checked before it decides over a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftcli.core.errors import BadData, UsageError
from ftcli.data.clean import require_text
from ftcli.data.records import Refused
from ftcli.data.rows import COLUMNS, Row, RowType, checked_row, row_type
from ftcli.human.tasks import Item, Judgement, Task, check, judgement_from

BY_HAND = "correct the line, or take it out"


def read_votes(path: Path, task: Task, items: Mapping[str, Item]) -> tuple[list[Judgement], int]:
    """The judgements of a votes file on ``items`` (by id), and how many it has on other rows.

    The key ``task`` may be missing, and is not looked at: votes given in another run count too. Raises `BadData` naming file and
    line for a line that is no judgement and one whose edited row is not canonical, `BadData` too for a file without any judgement
    on these items, and `UsageError` for what is no file.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no votes file", "give a JSONL file of judgements")
    found, others = [], 0
    for number, value in _lines(path):
        place = f"{path}:{number}"
        try:
            judgement = judgement_from({"task": "", **value})
        except BadData as error:
            raise BadData(f"{place}: {error.message}", error.hint or BY_HAND) from None
        item = items.get(judgement.item)
        if item is None:
            others += 1
            continue
        try:
            check(judgement, task, item)
        except BadData as error:
            raise BadData(f"{place}: {error.message}", error.hint or BY_HAND) from None
        found.append(with_checked_edit(judgement, place, item, BY_HAND))
    if not found:
        raise BadData(
            f"{path}: none of its {others} judgements is of a row that is to be judged",
            "item must be the id of a row of the input data, in mode sample of one that was drawn",
        )
    return found, others


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise BadData(f"{path}:{number}: no JSON: {reason}", BY_HAND) from None
            if not isinstance(value, dict):
                raise BadData(f"{path}:{number}: no JSON object", BY_HAND)
            yield number, value


def with_checked_edit(judgement: Judgement, place: str, item: Item, hint: str) -> Judgement:
    """``judgement`` of ``item``, its edited row with the id and meta of the row as it came in, since where a row comes from is not
    the reviewer's to change; an edit that changes nothing becomes an accept.

    Raises `BadData` that names ``place`` if the edited row is not canonical, not of the same type, or lacks a question or answer.
    """
    row = dict(item.row or {})
    if judgement.edited is None:
        return judgement
    id = judgement.edited.get("id", row["id"])
    if id != row["id"]:
        raise BadData(f"{place}: the edited row has the id {id!r}, its item {row['id']!r}", hint)
    edited = _canonical(
        f"{place}: the edited row",
        {**judgement.edited, **{name: row[name] for name in ("id", "meta") if name in row}},
        row,
        hint,
    )
    if edited == row:
        return replace(judgement, verdict="accept", edited=None)
    return replace(judgement, edited=edited)


def _canonical(place: str, edited: Row, row: Row, hint: str) -> Row:
    kind = row_type(row) or RowType.TEXT  # the row was checked, so it has one
    checked_row(place, edited, kind, hint=hint)
    unknown = sorted(edited.keys() - {"id", "meta", "tools", *COLUMNS[kind]} - row.keys())
    if unknown:
        raise BadData(f"{place}: unknown key {unknown[0]}", hint)
    try:
        require_text(edited)
        json.dumps(edited, ensure_ascii=False, allow_nan=False).encode()
    except Refused as refused:
        raise BadData(f"{place}: {refused.detail}", hint) from None
    except ValueError as error:
        raise BadData(f"{place}: {error}", hint) from None
    return edited
