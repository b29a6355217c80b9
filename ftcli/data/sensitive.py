"""What a kind of sensitive text is: a pattern, and a rule that a match must pass.

Own patterns, since recognisers built on language models flag ``asyncio.run`` as an address and know no keys, and entropy
tests flag prose. The kinds are in `ftcli.data.personal_kinds` and `ftcli.data.secret_kinds`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Match = re.Match[str]


def span_of(match: Match) -> tuple[int, int]:
    """Where the sensitive part of a match is: its group ``value`` if it has one, else all of it."""
    has_part = "value" in match.re.groupindex and match["value"] is not None
    return match.span("value") if has_part else match.span()


def value_of(match: Match) -> str:
    """The sensitive part of a match."""
    start, end = span_of(match)
    return match.string[start:end]


@dataclass(frozen=True, slots=True)
class Kind:
    """``pattern`` finds candidates (`value_of`), ``check`` accepts them.

    A text whose lower case has none of ``needles`` holds none. Kinds without needles need a `DIGIT_RUN`.
    """

    name: str
    pattern: re.Pattern[str]
    check: Callable[[Match], bool]
    needles: tuple[str, ...] = ()


DIGIT_RUN = re.compile(r"[0-9](?:[ .:()/-]{0,2}[0-9]){4}")


def ascii_pattern(pattern: str) -> re.Pattern[str]:
    """``pattern`` compiled for ASCII: in Chinese text letters stand right beside a number.

    Patterns begin with a character and look back over it, since `re` skips quickly to a character and not to a place.
    """
    return re.compile(pattern, re.ASCII)
