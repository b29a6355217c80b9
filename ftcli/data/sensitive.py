"""What a kind of sensitive text is: a pattern, and a rule that a match must pass.

Own patterns, since recognisers built on language models flag ``asyncio.run`` as an address and know no keys, and entropy
tests flag prose. The kinds are in `ftcli.data.personal_kinds` and `ftcli.data.secret_kinds`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Match = re.Match[str]
Digits = Literal[0, 1, 5]


def span_of(match: Match) -> tuple[int, int]:
    """Where the sensitive part of a match is: its group ``value`` if it has one, else all of it."""
    has_part = "value" in match.re.groupindex and match["value"] is not None
    return match.span("value") if has_part else match.span()


def value_of(match: Match) -> str:
    """The sensitive part of a match."""
    start, end = span_of(match)
    return match.string[start:end]


DIGIT = re.compile("[0-9]")
DIGIT_RUN = re.compile(r"[0-9](?=[0-9 .:()/-]{4})(?:[ .:()/-]{0,2}[0-9]){4}")
"""Five digits with little between them; that most digits begin none is soon told by the four characters ahead."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``pattern`` finds candidates (`value_of`), ``check`` accepts them.

    Only a text whose lower case has one of ``needles``, if there are any, can hold one, and only one with ``digits`` as
    `digits_in` counts them.
    """

    name: str
    pattern: re.Pattern[str]
    check: Callable[[Match], bool]
    needles: tuple[str, ...] = ()
    digits: Digits = 5


def digits_in(text: str) -> Digits:
    """5 if ``text`` has a `DIGIT_RUN`, else 1 if it has a digit, else 0."""
    if not DIGIT.search(text) and text.isascii():  # other texts may have digits of other scripts
        return 0
    return 5 if DIGIT_RUN.search(text) else 1


def ascii_pattern(pattern: str) -> re.Pattern[str]:
    """``pattern`` compiled for ASCII: in Chinese text letters stand right beside a number.

    Patterns begin with a character and look back over it, since `re` skips quickly to a character and not to a place.
    """
    return re.compile(pattern, re.ASCII)
