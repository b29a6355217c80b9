"""Turns of a conversation as data sets write them: role names, content parts, tool calls, and who may speak when."""

from __future__ import annotations

from typing import Any

from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.rows import Message
from ftcli.data.tool_calls import calls_from, calls_of
from ftcli.data.values import kind_of, text_of

CALL = "function_call"
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    CALL: CALL,
    "tool_call": CALL,
}
"""What data sets call the roles, in lower case, with ``_`` for spaces and hyphens. The text of a `CALL` is the call, as JSON."""
READ_KEYS = frozenset(("role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", "name", "id"))
"""Keys of a message that are read, or only name it."""
TEXT_PARTS = ("text", "input_text", "output_text")


def turns(value: Any, column: str, notes: RowNotes) -> list[Message]:
    """Messages from a list of ``{role, content}`` or ``{from, value}``, with roles by their usual names.

    Other keys that are not empty (a model's reasoning, a weight) are left out, noted as ``message_keys_dropped``.
    """
    if not isinstance(value, list):
        raise Refused(Reason.TYPE_ERROR, f"{column} is {kind_of(value)}, a list of messages needed")
    return [_turn(item, f"{column}[{index}]", notes) for index, item in enumerate(value)]


def _turn(item: Any, where: str, notes: RowNotes) -> Message:
    if not isinstance(item, dict):
        raise Refused(Reason.TYPE_ERROR, f"{where} is {kind_of(item)}, a message needed")
    role, content = _either(item, "role", "from"), _either(item, "content", "value")
    if not isinstance(role, str):
        raise Refused(Reason.TYPE_ERROR, f"{where} has no role; its keys are {', '.join(item) or 'none'}")
    known = ROLES.get("_".join(role.replace("-", " ").lower().split()))
    if known is None:
        raise Refused(Reason.ROLE_UNKNOWN, f"{where} has the role {role!r}; known are {', '.join(ROLES)}")
    if any(key not in READ_KEYS and item[key] not in (None, "", [], {}) for key in item):
        notes.changed.add("message_keys_dropped")
    if known == CALL:
        return {"role": "assistant", "content": "", "tool_calls": calls_from(content, where)}
    calls = calls_of(item, where)
    if calls and known != "assistant":
        raise Refused(Reason.ROLE_ORDER, f"{where} calls a tool, but is the {known}'s")
    if calls:
        text = "" if content is None else _content(content, where, notes)
        return {"role": "assistant", "content": text, "tool_calls": calls}
    message: Message = {"role": known, "content": _content(content, where, notes)}
    if known == "tool":
        message |= {key: item[key] for key in ("tool_call_id", "name") if isinstance(item.get(key), str)}
    return message


def _either(item: dict[str, Any], first: str, second: str) -> Any:
    """The value of either key; tables that hold both kinds of messages have null in the other."""
    found = item.get(first)
    return item.get(second) if found is None else found


def _content(content: Any, where: str, notes: RowNotes) -> str:
    """A message's text; a list of text parts is joined."""
    if not isinstance(content, list):
        return text_of(content, f"{where}: content", notes)
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else kind_of(part)
            raise Refused(Reason.TYPE_ERROR, f"{where}: content part {kind!r}, only text is read")
    return "\n".join(part["text"] for part in content)


FOLLOWS = {
    "": ("user",),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "call": ("tool",),
    "tool": ("assistant", "tool"),
}
"""Who may speak after whom; ``call`` is an assistant's message that calls tools."""


def conversation(messages: list[Message], *last: str) -> list[Message]:
    """``messages`` unless the order is wrong, or the last message is of none of the roles ``last``.

    At most one system message, first; then user and assistant in turn; after a call of tools their answers. Most chat templates
    refuse other orders, and some render them wrongly without a word.
    """
    due: tuple[str, ...] = ("system", "user")
    before = ""
    for index, message in enumerate(messages):
        role = message["role"]
        if role not in due:
            expected = " or the ".join(f"{name}'s" for name in FOLLOWS[before])
            raise Refused(Reason.ROLE_ORDER, f"message {index + 1} is the {role}'s, the {expected} was due")
        before = "call" if "tool_calls" in message else role
        due = FOLLOWS[before]
    if not messages or messages[-1]["role"] not in last:
        found = f"the {messages[-1]['role']}'s" if messages else "missing"
        expected = " or the ".join(f"{name}'s" for name in last)
        raise Refused(Reason.ROLE_ORDER, f"the last message is {found}, it must be the {expected}")
    return messages


def without_tools(messages: list[Message], what: str) -> list[Message]:
    """``messages`` unless they call tools, for row types that have no place for them; ``what`` names the type."""
    for index, message in enumerate(messages):
        if message["role"] == "tool" or "tool_calls" in message:
            done = "is a tool's" if message["role"] == "tool" else "calls tools"
            detail = f"message {index + 1} {done}; {what} rows know system, user and assistant texts only"
            raise Refused(Reason.ROLE_UNKNOWN, detail)
    return messages
