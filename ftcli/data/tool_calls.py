"""Calls of tools in conversations, and the tools themselves, as data sets write them.

A canonical call is ``{"type": "function", "function": {"name", "arguments"}}``, with the ``id`` that it came with. Arguments stay
JSON text, as in OpenAI's API: as objects, each tool would give them other columns in Arrow, and nulls for all of the others'.
`ftcli.data.chat` hands them to templates as objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ftcli.data.records import Reason, Refused
from ftcli.data.values import kind_of

Call = dict[str, Any]


def calls_tools(messages: Iterable[dict[str, Any]]) -> bool:
    """Whether a canonical conversation calls tools, or has what they answered."""
    return any(message["role"] == "tool" or "tool_calls" in message for message in messages)


def calls_of(message: dict[str, Any], where: str) -> list[Call]:
    """The calls of an assistant's message: its ``tool_calls``, or OpenAI's earlier ``function_call``; none is an empty list."""
    calls = message.get("tool_calls") or message.get("function_call")
    return calls_from(calls, f"{where}: tool_calls") if calls else []


def calls_from(value: Any, where: str) -> list[Call]:
    """The calls in ``value``: an object with name and arguments, a list of such, or JSON text of either."""
    found = _parsed(value, where) if isinstance(value, str) else value
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not found:
        raise Refused(Reason.TYPE_ERROR, f"{where} is {kind_of(found)}, calls needed, each with name and arguments")
    return [_call(item, f"{where}[{index}]") for index, item in enumerate(found)]


def _call(item: Any, where: str) -> Call:
    function = (item.get("function") or item) if isinstance(item, dict) else item
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise Refused(Reason.TYPE_ERROR, f"{where} has no function name")
    arguments = function.get("arguments")
    call = {"type": "function", "function": {"name": name, "arguments": _arguments(arguments, where)}}
    given = item.get("id")
    return {"id": given, **call} if isinstance(given, str) else call


def _arguments(found: Any, where: str) -> str:
    """Arguments as JSON text; none at all, which a function without parameters may have, are an empty object."""
    if found is None or found == "":
        return "{}"
    if isinstance(found, dict):
        return json.dumps(found, ensure_ascii=False)
    if not isinstance(found, str) or not isinstance(_parsed(found, f"{where}.arguments"), dict):
        raise Refused(Reason.TYPE_ERROR, f"{where}.arguments is no JSON object")
    return found


def tools_of(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that a row offers: column ``tools`` (or the earlier ``functions``), a list of schemas or JSON text of one.

    A schema without the wrapper ``{"type": "function", "function": schema}`` gets it, since templates look inside it.
    """
    column = "tools" if value.get("tools") else "functions"
    found = value.get(column)
    if isinstance(found, str):
        found = _parsed(found, column) if found.strip() else None
    if found is None:
        return []
    if not isinstance(found, list):
        raise Refused(Reason.TYPE_ERROR, f"{column} is {kind_of(found)}, a list of tools needed")
    return [_tool(item, f"{column}[{index}]") for index, item in enumerate(found)]


def _tool(item: Any, where: str) -> dict[str, Any]:
    found = _parsed(item, where) if isinstance(item, str) else item
    schema = (found.get("function") or found) if isinstance(found, dict) else None
    if not isinstance(schema, dict) or not isinstance(schema.get("name"), str) or not schema["name"]:
        raise Refused(Reason.TYPE_ERROR, f"{where} has no function name")
    return {"type": "function", "function": schema}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(Reason.TYPE_ERROR, f"{where} is no JSON: {error}") from None
