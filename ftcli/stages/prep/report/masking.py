"""Texts of rows with personal data and secrets masked: a report gets passed on more freely than its data."""

from __future__ import annotations

from ftcli.data.pii import find, mask

CUT_CHARACTERS = 499
"""Prep cuts the texts it writes for people near this length, perhaps within a value, which then looks like none."""


def masked(text: str) -> str:
    """``text`` with what `ftcli.data.pii` finds in it masked; of a text that was cut, the last word goes too."""
    if len(text) >= CUT_CHARACTERS:
        text = text[: 1 + max(text.rfind(" "), text.rfind("\n"))] + "…"
    pieces, position = [], 0
    for found in find(text):
        pieces += [text[position : found.start], mask(found.kind, text[found.start : found.end])]
        position = found.end
    return "".join([*pieces, text[position:]])
