"""Instructions whose following can be checked without a judge: ``{"check": "bullets", "n": 3}`` and the text alone decide.

Each check is a pure function ``(text, parameters) -> bool``; `follows` applies several, and no instruction is followed by silence.
The idea is that of IFEval (Zhou et al. 2023, arxiv.org/abs/2311.07911); the checks and their rules are our own.
"""

from __future__ import annotations

import inspect
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

SCRIPTS: dict[str, tuple[str, ...]] = {
    "latin": ("LATIN",),
    "cyrillic": ("CYRILLIC",),
    "greek": ("GREEK",),
    "arabic": ("ARABIC",),
    "hebrew": ("HEBREW",),
    "devanagari": ("DEVANAGARI",),
    "hangul": ("HANGUL",),
    "chinese": ("CJK",),
    "japanese": ("HIRAGANA", "KATAKANA", "CJK"),
}
"""How Unicode's names of a script's letters begin."""

_FENCED = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)
_BULLET = re.compile(r"\s*[-*•]\s+\S")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'\u201d\u2019)]*\s+|(?<=[\u3002\uff01\uff1f])")


def follows(text: str, checks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ``text`` says something and passes all ``checks``: ``{"check": name, parameter: value, ...}``.

    Raises `ValueError` for an unknown check or parameters that do not fit it.
    """
    passed = [instruction(**check)(text) for check in checks]  # all of them: a wrong check shows whatever the text
    return bool(text.strip()) and all(passed)


def instruction(check: str, **parameters: Any) -> Callable[[str], bool]:
    """The check called ``check`` with its parameters filled in. Raises `ValueError` as `follows` does."""
    if check not in CHECKS:
        raise ValueError(f"unknown check {check}; known: {', '.join(CHECKS)}")
    function = CHECKS[check]
    try:
        inspect.signature(function).bind("", **parameters)
    except TypeError as error:
        raise ValueError(f"check {check}: {error}") from None
    return lambda text: function(text, **parameters)


def json_object(text: str, keys: Sequence[str]) -> bool:
    """A JSON object with exactly ``keys``, alone or in one code fence."""
    fenced = _FENCED.fullmatch(text.strip())
    try:
        found = json.loads(fenced[1] if fenced else text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and set(found) == set(keys)


def _not_json(constant: str) -> None:
    """Python reads NaN and Infinity, which are not JSON."""
    raise ValueError(constant)


def bullets(text: str, n: int) -> bool:
    """Exactly ``n`` lines that begin with ``-``, ``*`` or ``•`` and a space; other lines may stand beside them."""
    return sum(_BULLET.match(line) is not None for line in text.splitlines()) == n


def upper_case(text: str) -> bool:
    return any(map(str.isupper, text)) and not any(map(str.islower, text))


def lower_case(text: str) -> bool:
    return any(map(str.islower, text)) and not any(map(str.isupper, text))


def words(text: str, at_least: int = 0, at_most: int | None = None) -> bool:
    """A word is what stands between white space and has a letter or digit."""
    count = sum(any(map(str.isalnum, word)) for word in text.split())
    return at_least <= count and (at_most is None or count <= at_most)


def contains(text: str, word: str) -> bool:
    """``word``, or a phrase, stands by itself in the text, in whatever case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def avoids(text: str, word: str) -> bool:
    return not contains(text, word)


def starts_with(text: str, phrase: str) -> bool:
    return text.strip().startswith(phrase)


def ends_with(text: str, phrase: str) -> bool:
    return text.strip().endswith(phrase)


def number_only(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None


def sentences(text: str, n: int) -> bool:
    """Exactly ``n`` pieces with a letter or digit, cut after an end mark that white space follows; ``3.5`` is not cut."""
    pieces = _SENTENCE_END.split(text.strip())
    return sum(any(map(str.isalnum, piece)) for piece in pieces) == n


def comma_items(text: str, n: int) -> bool:
    """Exactly ``n`` items on one line, separated by commas, none of them empty."""
    line = text.strip()
    items = re.split(r"[,\uff0c\u3001\u060c]", line)
    return len(items) == n and "\n" not in line and all(any(map(str.isalnum, item)) for item in items)


def script(text: str, name: str) -> bool:
    """All letters belong to one of `SCRIPTS`, and there is at least one. Raises `ValueError` for an unknown script."""
    if name not in SCRIPTS:
        raise ValueError(f"unknown script {name}; known: {', '.join(SCRIPTS)}")
    letters = [unicodedata.name(character, "") for character in text if character.isalpha()]
    return bool(letters) and all(letter.startswith(SCRIPTS[name]) for letter in letters)


CHECKS: dict[str, Callable[..., bool]] = {
    function.__name__: function
    for function in (
        json_object,
        bullets,
        upper_case,
        lower_case,
        words,
        contains,
        avoids,
        starts_with,
        ends_with,
        number_only,
        sentences,
        comma_items,
        script,
    )
}


def last_number(text: str) -> Decimal | None:
    """The last number in decimal digits, ``1,020.50`` read as 1020.5; None if there is none."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None
