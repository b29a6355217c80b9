"""What the report shows of the long files beside it: a few records of each kind, read line by line.

Nothing but the chosen records is ever in memory, whatever the size of the files.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ftcli.data.rows import read_jsonl

Json = dict[str, Any]

EXAMPLES = 3
PAIRS = 20
CONFLICTS = 20
KINDS = ("hard", "label", "cycle", "soft")
"""Kinds of conflicts, what matters most first."""


@dataclass(frozen=True)
class Shown:
    rejects: dict[str, list[Json]]
    """The first records of rejects.jsonl for each reason."""
    flags: dict[str, list[Json]]
    """The first records of flags.jsonl for each kind."""
    pairs: list[Json]
    """The pairs of duplicates.jsonl nearest to the threshold, half of them above where there are enough."""
    conflicts: list[Json]


def choose(folder: Path, threshold: float | None) -> Shown:
    """``threshold`` is the similarity from which near-duplicates are removed, None if none were looked for.

    A file that is not there is one without records. Raises `BadData` for a line that is no JSON.
    """
    return Shown(
        rejects=first_by(read_records(folder / "rejects.jsonl"), "reason"),
        flags=first_by(read_records(folder / "flags.jsonl"), "kind"),
        pairs=[] if threshold is None else nearest_pairs(folder / "duplicates.jsonl", threshold),
        conflicts=heapq.nsmallest(CONFLICTS, read_records(folder / "conflicts.jsonl"), key=_importance),
    )


def read_records(path: Path) -> Iterator[Json]:
    return read_jsonl(path) if path.is_file() else iter(())


def first_by(records: Iterator[Json], key: str) -> dict[str, list[Json]]:
    """The first `EXAMPLES` records for each value of ``key``."""
    found: dict[str, list[Json]] = {}
    for record in records:
        examples = found.setdefault(record[key], [])
        if len(examples) < EXAMPLES:
            examples.append(record)
    return found


def nearest_pairs(path: Path, threshold: float) -> list[Json]:
    """Up to `PAIRS` records, those nearest to ``threshold`` on either side, the most similar first."""

    def nearest(above: bool) -> list[Json]:
        side = (record for record in read_records(path) if (record["jaccard"] >= threshold) is above)
        return heapq.nsmallest(PAIRS, side, key=lambda record: (abs(record["jaccard"] - threshold), _place(record)))

    above, below = nearest(True), nearest(False)
    half = PAIRS // 2
    chosen = chain(above[: max(half, PAIRS - len(below))], below[: max(half, PAIRS - len(above))])
    return sorted(chosen, key=lambda record: (-record["jaccard"], _place(record)))


def _place(record: Json) -> tuple[str, int, str, int]:
    return record["file"], record["line"], record["kept_file"], record["kept_line"]


def _importance(record: Json) -> int:
    return KINDS.index(record["kind"])
