"""Two texts compared word by word."""

from __future__ import annotations

import difflib
import re

WORD = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]"  # scripts without spaces: each character is a word
    r"|[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+|\s+|[^\w\s]"
)

Pieces = list[tuple[str, bool]]
"""Consecutive pieces of a text, each with whether the other text lacks it."""


def word_diff(left: str, right: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces; those that are marked stand in one of them only."""
    words = WORD.findall(left), WORD.findall(right)
    steps = difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes()
    sides: tuple[Pieces, Pieces] = ([], [])
    for kind, left_from, left_to, right_from, right_to in steps:
        for side, of, start, stop in ((0, words[0], left_from, left_to), (1, words[1], right_from, right_to)):
            if start < stop:
                sides[side].append(("".join(of[start:stop]), kind != "equal"))
    return sides
