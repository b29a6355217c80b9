"""Conversations written as one string: ``\\n\\nHuman: ...\\n\\nAssistant: ...``, the layout of Anthropic's hh-rlhf.

A turn ends where a blank line and the next speaker's name follow, so a text that itself contains such a line cannot be told from
two turns; what comes of it is refused by the order of roles, or read as the turns that it looks like.
"""

from __future__ import annotations

import re
from typing import Any

from ftcli.data.rows import Message

SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: Any) -> bool:
    """Whether ``value`` is a string that begins with a human's turn and has an assistant's."""
    return isinstance(value, str) and value.lstrip()[:6] == "Human:" and "\n\nAssistant:" in value


def read_transcript(text: str) -> list[Message]:
    """The messages of a transcript, without the white space around each."""
    _, *parts = SPEAKER.split(text)
    return [{"role": ROLES[name], "content": said.strip()} for name, said in zip(parts[::2], parts[1::2], strict=True)]


def read_prompt(text: str) -> list[Message]:
    """The messages of a transcript that breaks off where the assistant is to answer."""
    messages = read_transcript(text)
    return messages[:-1] if messages[-1] == {"role": "assistant", "content": ""} else messages
