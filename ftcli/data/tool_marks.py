"""Conversations with tools as chat templates take them, and the same with marks that show what a template leaves out.

Templates that know nothing of tools drop calls and what tools answered without a word. A mark in the place of each shows it; names
alone would not, as a call's name stands in the list of tools too.
"""

from __future__ import annotations

import json
from typing import Any

from ftcli.data.rows import Message

Tool = dict[str, Any]


def with_objects(messages: list[Message]) -> list[Message]:
    """``messages`` with the arguments of calls as objects: most templates write them as JSON themselves."""
    return [
        {**message, "tool_calls": [_with_object(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.loads(function.get("arguments", "{}"))}}


def marked(messages: list[Message], tools: list[Tool]) -> tuple[list[Message], list[Tool], dict[str, str]]:
    """``messages`` and ``tools`` with marks, and what each mark stands for."""
    places: dict[str, str] = {}

    def mark(what: str) -> str:
        name = f"zqmark{len(places)}z"
        places[name] = what
        return name

    def renamed(owner: dict[str, Any], what: str) -> dict[str, Any]:
        function = owner["function"]
        return {**owner, "function": {**function, "name": mark(f"{what} {function['name']}")}}

    def marked_message(message: Message) -> Message:
        if message["role"] == "tool":
            return {**message, "content": mark("what a tool answered")}
        if "tool_calls" not in message:
            return message
        text = mark("the text beside a tool call") if message["content"].strip() else message["content"]
        return {**message, "content": text, "tool_calls": [renamed(c, "the call of") for c in message["tool_calls"]]}

    return [marked_message(item) for item in messages], [renamed(tool, "the tool") for tool in tools], places
