"""Are the answers written alike? Each is put into one class of each of eight features; a class that under a tenth of the answers
have, where over four fifths have another, is likely an accident, and is listed with places to look at.

Broken JSON, code fences that are never closed and fenced code that does not parse are listed however many there are. The counts
and examples add up, so chunks can be counted apart and merged in any order.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

Place = tuple[str, int]
"""File and line."""
Class = tuple[str, str]
"""A feature and the class of it."""
Classes = tuple[str, ...]
"""The class of each of `FEATURES`."""
T = TypeVar("T")

MAJORITY = 0.8
MINORITY = 0.1
EXAMPLES = 3
PARSED_CHARACTERS = 20_000
"""Longer code is not parsed."""

FEATURES = ("ends_with", "starts_with", "markdown", "json", "fences", "code", "answer_marker", "list")
BROKEN = (("json", "broken"), ("fences", "unclosed"), ("code", "broken"))
NO_HABIT = ("code",)
"""Features that follow from what was asked, so a rare class is no accident."""

_TAIL = 16
_ENDS = frozenset(".!?\u2026:;\u3002\uff01\uff1f\u0964\u061f")
_CLOSING = "\"'\u201d\u2019)]}*_`\u300d\u300f\uff09"
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*([^\s`]*)[^`\n]*$", re.MULTILINE)
_MARKDOWN = (
    ("#", re.compile(r"^#{1,6} \S", re.MULTILINE)),
    ("**", re.compile(r"\*\*[^\s*][^*\n]*\*\*")),
    ("`", re.compile(r"`[^`\n]+`|^[ \t]*```", re.MULTILINE)),
    ("~~~", re.compile(r"^[ \t]*~~~", re.MULTILINE)),
    ("](", re.compile(r"\[[^\]\n]+\]\([^)\s]+\)")),
    ("|", re.compile(r"^\|.*\|[ \t]*$", re.MULTILINE)),
)
"""Each pattern behind a text that it cannot do without, which is far quicker to look for."""
_ITEM = re.compile(r"\n[ \t]*(?:([-*\u2022])|\d{1,3}([.)]))[ \t]+\S")
_LIKE_JSON = re.compile(r"""\{\s*["'}]|\[\s*(?:[\[{"'\]]|-?[\d.]+\s*,)""")


def classes_of(text: str) -> Classes:
    """The class of ``text`` for each of `FEATURES`."""
    text = text.strip()
    fences = list(_FENCE.finditer(text)) if "```" in text or "~~~" in text else []
    return (
        "punctuation" if text[-_TAIL:].rstrip(_CLOSING)[-1:] in _ENDS else "other",
        _start(text[:1]),
        "yes" if [sign for sign, found in _MARKDOWN if sign in text and found.search(text)] else "no",
        _json(text) if text.startswith(("{", "[")) else "none",
        "none" if not fences else "unclosed" if len(fences) % 2 else "closed",
        _code(text, fences) if fences else "none",
        "####" if text.startswith("####", text.rfind("\n") + 1) else "none",
        _list_style(text),
    )


@dataclass(slots=True)
class Consistency:
    """Counts answers by their classes, with the first few places of each. Add all answers of one column, then ask for the result.

    Answers are counted by all their classes at once, as few of the possible combinations occur.
    """

    answers: int = 0
    counts: Counter[Classes] = field(default_factory=Counter)
    places: dict[Classes, list[Place]] = field(default_factory=dict)

    def add(self, text: str, place: Place) -> None:
        classes = classes_of(text)
        self.answers += 1
        self.counts[classes] += 1
        _remember(self.places, classes, place)

    def merge(self, other: Consistency) -> None:
        """Count what ``other`` counted."""
        self.answers += other.answers
        self.counts.update(other.counts)
        for classes, places in other.places.items():
            for place in places:
                _remember(self.places, classes, place)

    def result(self) -> dict[str, Any]:
        """Classes of each feature with their counts; ``minorities`` that look like accidents; and what is ``broken``."""
        counts: Counter[Class] = Counter()
        places: dict[Class, list[Place]] = {}
        for classes, count in self.counts.items():
            for found in zip(FEATURES, classes, strict=True):
                counts[found] += count
                for place in self.places[classes]:
                    _remember(places, found, place)
        features: dict[str, dict[str, int]] = {}
        for (feature, name), count in sorted(counts.items()):
            features.setdefault(feature, {})[name] = count
        accidents = [
            (feature, name)
            for feature, classes in features.items()
            if feature not in NO_HABIT and max(classes.values()) > MAJORITY * self.answers
            for name, count in classes.items()
            if count < MINORITY * self.answers and (feature, name) not in BROKEN
        ]

        def shown(found: Class) -> dict[str, Any]:
            return {
                "feature": found[0],
                "class": found[1],
                "rows": counts[found],
                "share": round(counts[found] / self.answers, 6),
                "examples": [{"file": file, "line": line} for file, line in places[found]],
            }

        return {
            "answers": self.answers,
            "features": features,
            "minorities": [shown(found) for found in accidents],
            "broken": [shown(found) for found in BROKEN if found in counts],
        }


def _remember(places: dict[T, list[Place]], key: T, place: Place) -> None:
    """Keep the smallest places of each key, so that the order of adding and merging does not matter."""
    known = places.setdefault(key, [])
    if len(known) < EXAMPLES or place < known[-1]:
        insort(known, place)
        del known[EXAMPLES:]


def _start(first: str) -> str:
    if not first.isalnum() or first.isdecimal():
        return "other"
    return "upper" if first.isupper() else "lower" if first.islower() else "uncased"


def _json(text: str) -> str:
    """Whether a text in brackets is JSON, or begins like an object or list of it; ``[1]`` or ``{{name}}`` may be anything."""
    return "valid" if _parses_as_json(text) else "broken" if _LIKE_JSON.match(text) else "none"


def _parses_as_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _code(text: str, fences: list[re.Match[str]]) -> str:
    """Whether what is fenced as JSON or Python parses; other languages and unclosed fences are not looked into."""
    blocks = [
        (opening[1].lower(), text[opening.end() + 1 : closing.start()])
        for opening, closing in zip(fences[::2], fences[1::2], strict=False)
    ]
    known = [parses for language, body in blocks if (parses := _parses(language, body)) is not None]
    return "unchecked" if not known else "parses" if all(known) else "broken"


def _parses(language: str, body: str) -> bool | None:
    if len(body) > PARSED_CHARACTERS:
        return None
    if language == "json":
        return _parses_as_json(body)
    if language not in ("python", "py", "python3") or body.lstrip().startswith(">>>"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in strings
            ast.parse(textwrap.dedent(body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _list_style(text: str) -> str:
    """The mark that the items of lists begin with: ``-``, ``*``, a bullet, ``1.``, ``1)``, or several."""
    marks = {bullet or f"1{dot}" for bullet, dot in _ITEM.findall(f"\n{text}")}
    return "none" if not marks else marks.pop() if len(marks) == 1 else "mixed"
