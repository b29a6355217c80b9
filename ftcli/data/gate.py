"""Patterns of texts in which a search may find something: a gate in front of it, for many texts at once (`ftcli.data.re2`).

A gate only ever lets too many texts through: it asks for words that a find cannot do without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LOWERED = "\u0130"
"""The one character whose lower case begins with an ASCII letter (i) that RE2 does not take for the same."""


def one_of(words: Iterable[str]) -> str:
    """The pattern of a text that has one of ``words`` (lower case) when it is in lower case; with either apostrophe."""
    return "|".join(map(re.escape, (LOWERED, *words))).replace("'", "['\u2019]")
