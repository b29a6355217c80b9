"""Rewards for school mathematics: is the last number of the answer the right one?

The function takes what TRL's GRPO gives its reward functions: ``completions`` as texts or as lists of messages, and the columns of
the data, one value a row. The right answer is the column ``answer`` of such data, or what `ftcli` passes as ``reference``: the text
of the row's own answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

NUMBER = re.compile(r"(?<![A-Za-z0-9.])[-\u2212]?\$?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)")
"""A hyphen right behind a letter or digit is no sign."""
BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|[\u00a0\u202f])(?=\d{3})")
"""What LaTeX and typesetters put between thousands."""


def accuracy(
    completions: Sequence[Any],
    reference: Sequence[str | None] | None = None,
    answer: Sequence[str | None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 where the completion's final number equals that of the right answer, else 0; None where the right answer has no number.

    Raises ValueError where the data have neither column.
    """
    right = reference if answer is None else answer
    if right is None:
        raise ValueError("the rows have neither a reference answer nor a column answer")
    return [_score(text_of(given), wanted or "") for given, wanted in zip(completions, right, strict=True)]


def _score(given: str, wanted: str) -> float | None:
    number = final_number(wanted)
    return None if number is None else float(final_number(given) == number)


def text_of(completion: Any) -> str:
    """A text as it is, of a list of messages the last one's content."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"] or "")


def final_number(text: str) -> Decimal | None:
    """The number that ``text`` gives as its result: the first one behind the last ``####``, else the last one in the last
    ``\\boxed{}``, else the last one of all. Signs of currency, units, and commas between thousands do not count.
    """
    text = THOUSANDS.sub("", text)
    _, mark, rest = text.rpartition("####")
    if mark and (found := NUMBER.search(rest)):
        return _value(found[0])
    boxes = BOXED.findall(text)
    found_all = NUMBER.findall(boxes[-1]) if boxes else []
    numbers = found_all or NUMBER.findall(text)
    return _value(numbers[-1]) if numbers else None


def _value(number: str) -> Decimal:
    return Decimal(number.replace("\u2212", "-").replace(",", "").replace("$", ""))
