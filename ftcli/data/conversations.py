"""Turns of a conversation as data sets write them: role names, content parts, and who may speak when."""

from __future__ import annotations

from typing import Any

from ftcli.data.records import Reason
from ftcli.data.rows import Message

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
"""What data sets call the three roles, in lower case."""
KINDS = {
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


class Refused(Exception):
    """A row cannot be converted."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def kind_of(value: Any) -> str:
    return KINDS.get(type(value), type(value).__name__)


def wanted_text(value: dict[str, Any], column: str, *, optional: bool = False) -> str:
    """The string in ``column``.

    An optional one may be absent or null. Numbers are refused: turning 7.0 into text is a guess.
    """
    text = value.get(column)
    if text is None and optional:
        return ""
    if not isinstance(text, str):
        raise Refused(Reason.TYPE_ERROR, f"{column} is {kind_of(text)}, text needed")
    return text


def turns(value: Any, column: str) -> list[Message]:
    """Messages from a list of ``{role, content}`` or ``{from, value}``, with roles by their usual names."""
    if not isinstance(value, list):
        raise Refused(Reason.TYPE_ERROR, f"{column} is {kind_of(value)}, a list of messages needed")
    return [_turn(item, f"{column}[{index}]") for index, item in enumerate(value)]


def _turn(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise Refused(Reason.TYPE_ERROR, f"{where} is {kind_of(item)}, a message needed")
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if not isinstance(role, str):
        raise Refused(Reason.TYPE_ERROR, f"{where} has no role; its keys are {', '.join(item)}")
    known = ROLES.get(role.strip().lower())
    if known is None or item.get("tool_calls"):
        detail = "calls tools" if known else f"has the role {role!r}"
        raise Refused(Reason.ROLE_UNKNOWN, f"{where} {detail}; system, user and assistant texts are known")
    return {"role": known, "content": _content(content, where)}


def _content(content: Any, where: str) -> str:
    """A message's text; a list of text parts is joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refused(Reason.TYPE_ERROR, f"{where}: content is {kind_of(content)}, text needed")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else kind_of(part)
            raise Refused(Reason.TYPE_ERROR, f"{where}: content part {kind!r}, only text is read")
    return "\n".join(part["text"] for part in content)


def conversation(messages: list[Message], last: str) -> list[Message]:
    """``messages`` unless the order is wrong: at most one system message, first; then user and assistant in turn, up to ``last``.

    Most chat templates refuse other orders, and some render them wrongly without a word.
    """
    spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for index, message in enumerate(spoken):
        expected = "user" if index % 2 == 0 else "assistant"
        if message["role"] != expected:
            where = index + 1 + len(messages) - len(spoken)
            raise Refused(Reason.ROLE_ORDER, f"message {where} is the {message['role']}'s, the {expected}'s was due")
    if not spoken or spoken[-1]["role"] != last:
        found = f"the {spoken[-1]['role']}'s" if spoken else "missing"
        raise Refused(Reason.ROLE_ORDER, f"the last message is {found}, it must be the {last}'s")
    return messages
