"""The texts of a row of any type: all of them, those that ask, those that answer.

Each message of a row but the system's is in exactly one of `prompt_text` and `answer_text`. In both, a message that
calls tools reads as its content and then one line of JSON for each call, so that rows whose calls differ differ in text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ftcli.data.rows import Row

PARTS = ("prompt", "messages", "chosen", "rejected", "completion", "candidates")
"""Fields that hold lists of objects with a ``content``, in the order in which their texts are listed."""


def contents_of(row: Row) -> list[dict[str, Any]]:
    """Every message or candidate of ``row``, in the order of `PARTS`; a candidate has no role."""
    return [item for part in PARTS if part in row for item in row[part]]


def role_of(item: dict[str, Any]) -> str:
    """Who speaks in a message or candidate: candidates are answers."""
    role: str = item.get("role", "assistant")
    return role


def texts_of(row: Row) -> list[str]:
    """Every text of ``row``, in the order of `PARTS`; the arguments of tool calls are none."""
    if "text" in row:
        return [row["text"]]
    return [item["content"] for item in contents_of(row)]


def map_texts(row: Row, change: Callable[[str], str]) -> Row:
    """``row`` itself if ``change`` leaves all its texts as they are, else a copy with the changed ones."""
    texts = texts_of(row)
    changed = [change(text) for text in texts]
    return row if changed == texts else with_texts(row, changed)


def with_texts(row: Row, texts: list[str]) -> Row:
    """A copy of ``row`` with other texts, given in the order of `texts_of`."""
    copy = dict(row)
    if "text" in row:
        copy["text"] = texts[0]
        return copy
    following = iter(texts)
    for part in PARTS:
        if part in row:
            copy[part] = [{**item, "content": next(following)} for item in row[part]]
    return copy


def asked_of(row: Row) -> list[dict[str, Any]]:
    """The messages that ask: of ``messages`` all but the system's and the assistant's, of a ``prompt`` all but the system's.

    A text row asks nothing.
    """
    if "messages" in row:
        return [item for item in row["messages"] if item["role"] not in ("system", "assistant")]
    return [item for item in row.get("prompt", ()) if item["role"] != "system"]


def answers_of(row: Row) -> list[dict[str, Any]]:
    """The messages or candidates that answer: the assistant's of ``messages``, both sides of a pair, the completion.

    A bare prompt has none, and a text row has no messages.
    """
    if "messages" in row:
        return [item for item in row["messages"] if item["role"] == "assistant"]
    return [item for part in PARTS if part in row and part != "prompt" for item in row[part]]


def imitated(row: Row) -> list[str]:
    """The answers that training makes likelier: not rejected ones, completions labelled bad, or lower candidates."""
    if "messages" in row:
        return [item["content"] for item in row["messages"] if item["role"] == "assistant"]
    if "candidates" in row:
        best = min(item["rank"] for item in row["candidates"])
        return [item["content"] for item in row["candidates"] if item["rank"] == best]
    if "chosen" in row:
        return [item["content"] for item in row["chosen"]]
    return [item["content"] for item in answers_of(row)] if row.get("label", True) else []


def prompt_text(row: Row) -> str:
    """What is asked (`asked_of`), joined by newlines; empty for a text row."""
    return "\n".join([said(item) for item in asked_of(row)])


def answer_text(row: Row) -> str:
    """What is answered (`answers_of`), joined by newlines; all of a text row."""
    return str(row["text"]) if "text" in row else "\n".join([said(item) for item in answers_of(row)])


def said(message: dict[str, Any]) -> str:
    """The content of a message or candidate, followed by its tool calls, if any, as JSON with sorted keys."""
    text: str = message["content"]
    calls = message.get("tool_calls")
    if not calls:
        return text
    lines = [json.dumps(call["function"], ensure_ascii=False, sort_keys=True) for call in calls]
    return "\n".join([text, *lines] if text else lines)
