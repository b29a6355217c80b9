"""Two texts compared word by word."""

from __future__ import annotations

import difflib
import re

WORD = re.compile(
    r"([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]"  # scripts without spaces: each character is a word
    r"|[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+|[^\w\s])(\s*)"
)
MOST_WORDS = 4_000
"""Together; comparing takes time that grows with the product of both."""

Pieces = list[tuple[str, bool]]
"""Consecutive pieces of a text, each with whether the other text lacks it."""


def word_diff(left: str, right: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces; those that are marked stand in one of them only.

    White space is no difference: it is marked between marked words only. Texts of more than `MOST_WORDS` words are not compared,
    and nothing in them is marked.
    """
    words = WORD.findall(left), WORD.findall(right)
    if sum(map(len, words)) > MOST_WORDS:
        return [(left, False)], [(right, False)]
    first, second = ([word for word, _ in side] for side in words)
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    sides: tuple[Pieces, Pieces] = (_leading(left), _leading(right))
    for kind, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        for side, of, start, stop in ((0, words[0], left_from, left_to), (1, words[1], right_from, right_to)):
            _add(sides[side], of[start:stop], kind != "equal")
    return sides


def _leading(text: str) -> Pieces:
    space = text[: len(text) - len(text.lstrip())]
    return [(space, False)] if space else []


def _add(pieces: Pieces, words: list[tuple[str, str]], is_only_here: bool) -> None:
    """Append ``words`` as one piece; the white space behind a marked piece is not part of it."""
    text = "".join(word + space for word, space in words)
    bare = text.rstrip() if is_only_here else text
    pieces += [piece for piece in ((bare, is_only_here), (text[len(bare) :], False)) if piece[0]]
