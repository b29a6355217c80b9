"""Does length alone tell the better answer from the worse one? A reward model would learn that first.

Two shares, each 0.5 without bias and with ties counted half: ``pair_accuracy``, how often the better answer of a pair is the longer
one, and ``auc``, how often a better answer is longer than the worse answer of any pair. The first sees a bias of a few words among
prompts of many lengths, which the second drowns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from ftcli.data.rows import Row
from ftcli.data.two_sample import auc

AMBER_OVER = 0.65
JUDGED_PAIRS = 100
"""Pairs under which there is no light: the standard error of a share is then over 0.05."""


def length_pairs(row: Row, length: Callable[[str], int] = len) -> Iterator[tuple[int, int]]:
    """Lengths of (better, worse) answers that a preference row or each pair of a ranking states; ties state nothing."""
    if "chosen" in row:
        better, worse = (sum(length(message["content"]) for message in row[side]) for side in ("chosen", "rejected"))
        yield better, worse
        return
    ranked = [(candidate["rank"], length(candidate["content"])) for candidate in row["candidates"]]
    yield from ((better, worse) for rank, better in ranked for other, worse in ranked if rank < other)


def measure(pairs: Iterable[tuple[int, int]], *, unit: Literal["tokens", "characters"]) -> dict[str, Any]:
    """The length bias of ``pairs`` of lengths (better, worse) as JSON; amber if either share is over 0.65 or under 0.35."""
    lengths = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
    better, worse = lengths.T
    count = len(lengths)
    if not count:
        return {"pairs": 0, "unit": unit, "auc": None, "light": None, "reason": "no pairs"}
    longer, equal = float((better > worse).mean()), float((better == worse).mean())
    shares = {"pair_accuracy": longer + equal / 2, "auc": auc(better, worse)}
    biased = any(max(share, 1 - share) > AMBER_OVER for share in shares.values())
    light = None if count < JUDGED_PAIRS else "amber" if biased else "green"
    return {
        "pairs": count,
        "unit": unit,
        "mean_better": round(float(better.mean()), 6),
        "mean_worse": round(float(worse.mean()), 6),
        "mean_difference": round(float((better - worse).mean()), 6),
        "share_longer": round(longer, 6),
        "share_equal": round(equal, 6),
        **{name: round(share, 6) for name, share in shares.items()},
        "light": light,
    }
