"""What each row of a chunk may hold that a step looks for, from one look at all of them.

Most rows hold none of it, and need no search of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

from ftcli.data import boilerplate, pii, rules
from ftcli.data.re2 import column, holding
from ftcli.data.rows import Row, uses_tools
from ftcli.data.texts import texts_of


class Suspicion(NamedTuple):
    """Whether a row may break a rule, and hold a stock phrase or personal data or a secret; False is certain."""

    rules: bool
    boilerplate: bool
    pii: bool


def suspicions(rows: Sequence[Row], packs: Collection[str]) -> Iterator[Suspicion]:
    """What each of ``rows`` may hold, and which may break a rule of ``packs``."""
    texts = column(["\n".join(texts_of(row)) for row in rows])
    by_pack = [holding(rules.GATES[pack], texts) for pack in packs]
    by_rule = map(any, zip(*by_pack, strict=True)) if by_pack else repeat(False)
    # The arguments of calls are no texts, so rows with calls are always looked into.
    private = [found or uses_tools(row) for found, row in zip(holding(pii.GATE, texts), rows, strict=True)]
    return map(Suspicion, by_rule, holding(boilerplate.GATE, texts), private)
