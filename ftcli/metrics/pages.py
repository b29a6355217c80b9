"""What the HTML reports share: their style sheet, and how characters that a page would hide are shown."""

from __future__ import annotations

import re
import unicodedata
from importlib import resources

from markupsafe import Markup

JOINERS = "\u200c\u200d"
"""Persian, Hindi and emoji need them, and alone they neither hide nor turn text."""
HIDDEN = {"Cc", "Cf", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that can hide or reorder text, or end a line of it."""
PLAIN = re.compile(r"[\n\t -~]*")


def page_style() -> Markup:
    return Markup(resources.files("ftcli.metrics").joinpath("page.css").read_text(encoding="utf-8"))


def visible(text: str) -> str:
    """Characters that hide or turn text as ``<U+202E>``; lone surrogates as ``\\ud800``; line breaks and tabs stay."""
    if PLAIN.fullmatch(text):
        return text
    return "".join(
        f"<U+{ord(character):04X}>"
        if unicodedata.category(character) in HIDDEN and character not in "\n\t" + JOINERS
        else character
        for character in text.encode("utf-8", "backslashreplace").decode("utf-8")
    )
