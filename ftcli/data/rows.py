"""Canonical rows, and the folder that holds them.

A data folder has ``train``, ``validation`` and ``test`` (a split may be empty) as ``.jsonl`` or as ``.parquet``, of one row type:

* messages:   ``{"id", "messages": [{"role", "content"}, ...], "meta"}``; the last message is the assistant's
* prompt:     ``{"id", "prompt": [message, ...], "meta"}``
* preference: ``{"id", "prompt": [message, ...], "chosen": [message], "rejected": [message], "meta"}``
* ranking:    ``{"id", "prompt": [message, ...], "candidates": [{"content", "rank"}, ...], "meta"}``; at least two candidates,
  rank 1 is the best, equal ranks are ties
* unpaired:   ``{"id", "prompt": [message, ...], "completion": [message], "label": true or false, "meta"}``
* text:       ``{"id", "text", "meta"}``

In messages and prompt rows an assistant's message may have ``tool_calls`` (`ftcli.data.tool_calls`), which messages of the role
``tool`` answer, and the row may have ``tools``, a list of their JSON schemas.

These are TRL's conversational types (a ranking is ours) plus ``id`` and ``meta`` (a JSON object), so `datasets.load_dataset` and
other tools read them as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from ftcli.core.errors import BadData
from ftcli.data.tool_calls import calls_tools

Row = dict[str, Any]
Message = dict[str, Any]

SPLITS = ("train", "validation", "test")
FileFormat = Literal["jsonl", "parquet"]
FILE_FORMATS: tuple[FileFormat, ...] = ("jsonl", "parquet")
RUN_PREP = "run `ftcli prep` on raw files first"


class RowType(StrEnum):
    MESSAGES = "messages"
    PROMPT = "prompt"
    PREFERENCE = "preference"
    RANKING = "ranking"
    UNPAIRED = "unpaired"
    TEXT = "text"


COLUMNS = {
    RowType.MESSAGES: ("messages",),
    RowType.PREFERENCE: ("prompt", "chosen", "rejected"),
    RowType.RANKING: ("prompt", "candidates"),
    RowType.UNPAIRED: ("prompt", "completion", "label"),
    RowType.PROMPT: ("prompt",),
    RowType.TEXT: ("text",),
}
"""What each type has beside ``id`` and ``meta``; a row is of the first type whose columns it has."""
TAKES_TOOLS = (RowType.MESSAGES, RowType.PROMPT)
"""Types whose rows may have ``tools``, and messages that call them."""


def row_type(row: Row) -> RowType | None:
    """The type of a canonical row by its columns, or None."""
    return next((kind for kind, columns in COLUMNS.items() if all(name in row for name in columns)), None)


def uses_tools(row: Row) -> bool:
    """Whether ``row`` offers tools or has messages that call them or answer such calls."""
    return "tools" in row or calls_tools(row.get("messages") or row.get("prompt") or ())


def split_file(folder: Path, split: str) -> Path:
    """The file of one split. Raises `BadData` if there is none, or one of each format."""
    names = [f"{split}.{suffix}" for suffix in FILE_FORMATS]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    raise BadData(
        f"{folder}: both {' and '.join(names)}" if found else f"{folder}: no {' or '.join(names)}",
        "remove the older one"
        if found
        else "a data folder comes from `ftcli prep`; it holds train, validation and test, as .jsonl or .parquet",
    )


def read_split(folder: Path, split: str, *wanted: RowType, limit: int | None = None) -> list[Row]:
    """The first ``limit`` rows of one split, checked to be of one of the ``wanted`` types.

    Raises `BadData` naming file and line for a missing file, a line that is no JSON object, or another row type.
    """
    path = split_file(folder, split)
    found = stream_rows(path)
    rows: list[Row] = []
    while limit is None or len(rows) < limit:
        row = next(found, None)
        if row is None:
            break
        rows.append(checked_row(f"{path}:{len(rows) + 1}", row, *wanted))
    return rows


def stream_rows(path: Path) -> Iterator[Row]:
    """The rows of a split's file (`split_file`) one after another, unchecked: for files that a stage has read before."""
    return read_jsonl(path) if path.suffix == ".jsonl" else _read_parquet(path)


def checked_row(place: str, row: Row, *wanted: RowType, hint: str = RUN_PREP) -> Row:
    """``row`` if it is a canonical row of one of the ``wanted`` types. Raises `BadData` that names ``place`` if not."""
    found = row_type(row) if isinstance(row, dict) else None  # any JSON may stand there
    if found not in wanted:
        names = " or ".join(wanted)
        have = f"a {found} row" if found else "no known row type"
        raise BadData(f"{place}: {have}, {names} needed", hint)
    problem = _problem(row, found)
    if problem:
        raise BadData(f"{place}: {problem}", hint)
    return row


def _problem(row: Row, found: RowType) -> str:
    """What keeps ``row`` from being canonical, or an empty string."""
    if not isinstance(row.get("id"), str):
        return "id is not text"
    if found is RowType.TEXT:
        return "" if isinstance(row["text"], str) else "text is not text"
    for name in COLUMNS[found]:
        if name in ("candidates", "label"):
            continue
        if not _is_messages(row[name]):
            return f"{name} is not a list of messages, each with role and content as text"
        if name != "prompt" and row[name][-1]["role"] != "assistant":
            return f"the last message of {name} is not the assistant's"
    if found is RowType.RANKING and not _is_ranked(row["candidates"]):
        return "candidates is not a list of two or more {content, rank}, text and number"
    if found is RowType.UNPAIRED and not isinstance(row["label"], bool):
        return "label is neither true nor false"
    return "" if _has_valid_tools(row, found) else "tools or tool_calls are not lists of {type, function: {name, ...}}"


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(item, dict) and isinstance(item.get("role"), str) and isinstance(item.get("content"), str)
            for item in value
        )
    )


def _is_ranked(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(
            isinstance(item, dict) and isinstance(item.get("content"), str) and type(item.get("rank")) is int
            for item in value
        )
    )


def _has_valid_tools(row: Row, found: RowType) -> bool:
    if found not in TAKES_TOOLS or not uses_tools(row):
        return True
    messages = row["messages"] if found is RowType.MESSAGES else row["prompt"]
    lists = [message["tool_calls"] for message in messages if "tool_calls" in message]
    return all(isinstance(value, list) and all(map(_is_function, value)) for value in (*lists, row.get("tools", [])))


def _is_function(value: Any) -> bool:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    try:
        return isinstance(json.loads(function.get("arguments", "{}")), dict)
    except (TypeError, ValueError, RecursionError):
        return False


def prompt_of(row: Row) -> list[Message]:
    """What the model is asked: everything before the last answer."""
    prompt: list[Message] = row["messages"][:-1] if "messages" in row else row["prompt"]
    return prompt


def reference_of(row: Row) -> str | None:
    """The reference answer's text: the last assistant message, the chosen answer, the first of the best candidates, or a
    completion that is labelled good. None where there is none: for a bare prompt, and where a call of tools is the answer."""
    if "messages" in row:
        last = row["messages"][-1]
        return None if "tool_calls" in last else str(last["content"])
    if "chosen" in row:
        return str(row["chosen"][-1]["content"])
    if "candidates" in row:
        return str(min(row["candidates"], key=lambda item: item["rank"])["content"])
    return str(row["completion"][-1]["content"]) if "completion" in row and row["label"] else None


def write_rows(
    path: Path, rows: Iterable[Row], file_format: FileFormat, kind: RowType, *, with_tools: bool = False
) -> int:
    """Write ``rows``, all of type ``kind``, as one split; return their number.

    A Parquet file's columns are decided by ``kind`` and ``with_tools`` alone, so give all splits of a folder the same: tools in
    any of them (`uses_tools`) means True for each.
    """
    if file_format == "jsonl":
        return write_jsonl(path, rows)
    from ftcli.data.parquet_rows import write_parquet  # noqa: PLC0415  (the controller reads this module, and needs no Arrow)

    return write_parquet(path, rows, COLUMNS[kind], with_tools)


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Write ``rows``, one JSON object a line; return their number."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file that ftcli itself wrote. Raises `BadData` naming file and line for one that is no JSON."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise BadData(f"{path}:{number}: no JSON: {reason}", RUN_PREP) from None


def _read_parquet(path: Path) -> Iterator[Row]:
    from ftcli.data.parquet_rows import read_parquet  # noqa: PLC0415

    return read_parquet(path)
