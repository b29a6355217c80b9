"""What a teacher model writes: one JSON object a reply, found and checked, and the forms it may have.

Replies in free text ("###\\n3. Instruction: ...") are how merged instructions came into Alpaca's data; an object has its parts
apart, and what does not fit its form is asked for again or dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

THOUGHTS_END = "</think>"


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Form(BaseModel):
    """An object that a teacher is to write; keys that it adds are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Exchange(Form):
    instruction: Text
    response: Text


class Instruction(Form):
    instruction: Text


class Quoted(Exchange):
    quote: Text


class Worse(Form):
    """An answer that is worse than the one it was written beside, and in what."""

    flaw: Text
    response: Text


class Unusable(Exception):
    """A reply without an object of the form wanted; the message can be told to the teacher."""


def first_object(text: str) -> str:
    """The first balanced ``{...}`` of ``text`` after any thoughts; braces inside JSON strings do not count. Raises `Unusable`."""
    text = text.rpartition(THOUGHTS_END)[2]
    start = text.find("{")
    depth, in_string, is_escaped = 0, False, False
    for place in range(start, len(text)) if start >= 0 else ():
        character = text[place]
        if is_escaped:
            is_escaped = False
        elif in_string:
            is_escaped, in_string = character == "\\", character != '"'
        elif character == '"':
            in_string = True
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[start : place + 1]
    raise Unusable("it has no JSON object" if start < 0 else "its JSON object does not end")


F = TypeVar("F", bound=Form)


def read_reply(text: str, form: type[F]) -> F:
    """The object in a teacher's reply. Raises `Unusable`, saying all that is wrong with it."""
    found = first_object(text)
    try:
        value = json.loads(found, strict=False)  # a line break inside a string is plain enough
    except (ValueError, RecursionError) as error:
        raise Unusable(f"it is no valid JSON: {error}") from None
    try:
        return form.model_validate(value, strict=True)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise Unusable("; ".join(problems)) from None


def has_quote(passage: str, quote: str) -> bool:
    """Whether ``quote`` occurs in ``passage`` word for word; how white space is broken into lines does not count."""
    return " ".join(quote.split()) in " ".join(passage.split())


def is_synthetic(meta: Mapping[str, Any]) -> bool:
    """Whether the ``meta`` of a row says that a model wrote the row, also if a person has edited it since."""
    prov = meta.get("prov")
    return isinstance(prov, dict) and (prov.get("origin") == "synthetic" or "teacher" in prov or bool(seed_ids(meta)))


def seed_ids(meta: Mapping[str, Any]) -> list[str]:
    """The ids of the rows that a synthetic row was made from."""
    prov = meta.get("prov")
    found = prov.get("seed_ids") if isinstance(prov, dict) else None
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []
