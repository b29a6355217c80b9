"""Canonical rows, and the folder that holds them.

A data folder has ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` (a split may be empty) of one row type:

* messages:   ``{"id", "messages": [{"role", "content"}, ...], "meta"}``; the last message is the assistant's
* prompt:     ``{"id", "prompt": [message, ...], "meta"}``
* preference: ``{"id", "prompt": [message, ...], "chosen": [message], "rejected": [message], "meta"}``
* text:       ``{"id", "text", "meta"}``

These are TRL's conversational types plus ``id`` and ``meta`` (a JSON object), so `datasets.load_dataset("json", ...)` and other
tools read them as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from ftcli.core.errors import BadData

Row = dict[str, Any]
Message = dict[str, str]

SPLITS = ("train", "validation", "test")


class RowType(StrEnum):
    MESSAGES = "messages"
    PROMPT = "prompt"
    PREFERENCE = "preference"
    TEXT = "text"


def row_type(row: Row) -> RowType | None:
    """The type of a canonical row by its fields, or None."""
    if "messages" in row:
        return RowType.MESSAGES
    if "chosen" in row and "rejected" in row:
        return RowType.PREFERENCE
    if "prompt" in row:
        return RowType.PROMPT
    return RowType.TEXT if "text" in row else None


def read_split(folder: Path, split: str, *wanted: RowType, limit: int | None = None) -> list[Row]:
    """The first ``limit`` rows of one split, checked to be of one of the ``wanted`` types.

    Raises `BadData` naming file and line for a missing file, a line that is no JSON object, or another row type.
    """
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        raise BadData(
            f"{folder}: no {split}.jsonl",
            "a data folder comes from `ftcli prep`; it holds train.jsonl, validation.jsonl and test.jsonl",
        )
    rows: list[Row] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if limit is not None and len(rows) >= limit:
                break
            rows.append(_checked(path, number, line, wanted))
    return rows


def _checked(path: Path, number: int, line: bytes, wanted: tuple[RowType, ...]) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise BadData(f"{path}:{number}: no JSON: {reason}", "run `ftcli prep` on raw files first") from None
    found = row_type(row) if isinstance(row, dict) else None
    if found not in wanted:
        names = " or ".join(wanted)
        have = f"a {found} row" if found else "no known row type"
        raise BadData(f"{path}:{number}: {have}, {names} needed", "run `ftcli prep` on raw files first")
    problem = _problem(row, found)
    if problem:
        raise BadData(f"{path}:{number}: {problem}", "run `ftcli prep` on raw files first")
    return row


def _problem(row: Row, found: RowType | None) -> str:
    """What keeps ``row`` from being canonical, or an empty string."""
    if not isinstance(row.get("id"), str):
        return "id is not text"
    if found is RowType.TEXT:
        return "" if isinstance(row["text"], str) else "text is not text"
    if found is RowType.MESSAGES:
        lists = {"messages": row["messages"]}
    else:
        lists = {name: row.get(name) for name in ("prompt", "chosen", "rejected") if name == "prompt" or name in row}
    for name, messages in lists.items():
        if not _is_messages(messages):
            return f"{name} is not a list of messages, each with role and content as text"
        if name != "prompt" and messages[-1]["role"] != "assistant":
            return f"the last message of {name} is not the assistant's"
    return ""


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(item, dict) and isinstance(item.get("role"), str) and isinstance(item.get("content"), str)
            for item in value
        )
    )


def prompt_of(row: Row) -> list[Message]:
    """What the model is asked: everything before the last answer."""
    prompt: list[Message] = row["messages"][:-1] if "messages" in row else row["prompt"]
    return prompt


def reference_of(row: Row) -> str | None:
    """The reference answer's text: the last assistant message, or the chosen answer; None for a bare prompt."""
    if "messages" in row:
        return str(row["messages"][-1]["content"])
    return str(row["chosen"][-1]["content"]) if "chosen" in row else None


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Write ``rows``, one JSON object a line; return their number."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file that ftcli itself wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
