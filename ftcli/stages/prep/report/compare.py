"""Two results of prep against each other: their figures, their settings, and their rows by id.

Rows are compared through arrays of 64-bit digests, 17 bytes a row, so that tens of millions fit; two of ten million ids share
a digest with a chance of 3 in a million. An id says what a row says but for case and white space: an equal id with another
text is a row that was cleaned differently.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash

from ftcli.core.errors import BadData
from ftcli.data.parquet_rows import read_parquet
from ftcli.data.rows import SPLITS, Row, read_jsonl, split_file

Json = Mapping[str, Any]
Figure = int | float | str | bool | None

EXAMPLES = 5
NAMES = ("label", "name", "step", "file")
"""Keys that tell the entries of a list apart."""
OPENING = 500
"""Characters kept of a row's opening."""


def figures(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Figure]:
    """Every single value in ``value`` by its path; lists of named objects count as objects, other lists are left out."""
    if isinstance(value, Mapping):
        return {key: leaf for name, part in value.items() for key, leaf in figures(part, (*path, str(name))).items()}
    if isinstance(value, list):
        name = next((key for key in NAMES if value and isinstance(value[0], Mapping) and key in value[0]), None)
        named = {item[name]: {key: part for key, part in item.items() if key != name} for item in value} if name else {}
        return figures(named, path)
    return {path: value}


def changes(before: Json, after: Json) -> dict[str, dict[str, tuple[Figure, Figure]]]:
    """``{section: {figure: (before, after)}}`` of the figures that differ; None stands for one that is not there.

    The section of a figure that is in no other is ``rows``.
    """
    old, new = figures(before), figures(after)
    found: dict[str, dict[str, tuple[Figure, Figure]]] = {}
    for path in dict.fromkeys([*old, *new]):
        values = old.get(path), new.get(path)
        if values[0] != values[1]:
            section, *rest = path if len(path) > 1 else ("rows", *path)
            found.setdefault(section, {})[".".join(rest)] = values
    return found


@dataclass(frozen=True)
class Rows:
    """The rows of a data folder in file order, one array entry each."""

    id: np.ndarray
    """Digest of the row's id, uint64."""
    text: np.ndarray
    """Digest of everything in the row but ``id`` and ``meta``, uint64."""
    split: np.ndarray
    """Index into `SPLITS`, uint8."""


def digest_rows(folder: Path) -> Rows:
    """One pass over the splits in ``folder``. Raises `BadData` for a line that is no row."""
    ids, texts, splits = array("Q"), array("Q"), array("B")
    for number, split in enumerate(SPLITS):
        for row in read_rows(folder, split):
            ids.append(xxhash.xxh3_64_intdigest(row["id"].encode()))
            content = {name: value for name, value in row.items() if name not in ("id", "meta")}
            texts.append(xxhash.xxh3_64_intdigest(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)))
            splits.append(number)
    return Rows(np.array(ids, np.uint64), np.array(texts, np.uint64), np.array(splits, np.uint8))


def read_rows(folder: Path, split: str) -> Iterator[Row]:
    """The rows of one split. Raises `BadData` for a split that is not there, and for what is no row."""
    path = split_file(folder, split)
    for number, row in enumerate(read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path), start=1):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise BadData(f"{path}:{number}: no row with an id", "compare folders that `ftcli prep` wrote")
        yield row


def compare_rows(before: Path, after: Path) -> dict[str, Any]:
    """Rows that only one of two data folders has, that changed their split, or their text; counts and a few of each."""
    old, new = digest_rows(before), digest_rows(after)
    _, old_at, new_at = np.intersect1d(old.id, new.id, return_indices=True)
    in_order = np.argsort(new_at)
    old_at, new_at = old_at[in_order], new_at[in_order]
    was, now = old.split[old_at], new.split[new_at]
    moves = {
        f"{one} → {other}": new_at[(was == start) & (now == end)]
        for start, one in enumerate(SPLITS)
        for end, other in enumerate(SPLITS)
        if start != end
    }
    gone = {"removed": np.flatnonzero(~np.isin(old.id, new.id))}
    come = {
        "added": np.flatnonzero(~np.isin(new.id, old.id)),
        "rewritten": new_at[old.text[old_at] != new.text[new_at]],
        **{name: places for name, places in moves.items() if len(places)},
    }
    return {
        "before": len(old.id),
        "after": len(new.id),
        "in_both": len(old_at),
        "found": {**_found(before, old, gone), **_found(after, new, come)},
    }


def _found(folder: Path, rows: Rows, groups: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """For each group of places in ``rows``: how many there are, in which splits, and the first few."""
    first = {int(place) for places in groups.values() for place in places[:EXAMPLES]}
    examples = dict(_examples(folder, first))
    return {
        name: {
            "rows": len(places),
            "splits": {split: int((rows.split[places] == number).sum()) for number, split in enumerate(SPLITS)},
            "examples": [examples[int(place)] for place in places[:EXAMPLES]],
        }
        for name, places in groups.items()
    }


def _examples(folder: Path, places: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """What to show of the rows at ``places``, in one pass that ends with the last of them."""
    left = set(places)
    rows = ((split, row) for split in SPLITS for row in read_rows(folder, split))
    for place, (split, row) in enumerate(rows if left else ()):
        if place in left:
            left.remove(place)
            meta = row.get("meta") or {}
            where = f"{meta.get('file')}:{meta.get('line')}"
            yield place, {"id": row["id"], "split": split, "place": where, "text": opening(row)}
            if not left:
                return


def opening(row: Row) -> str:
    """What a row asks, or begins with."""
    if "text" in row:
        return str(row["text"])[:OPENING]
    messages = row.get("prompt") or row.get("messages") or [{}]
    asked = next((message for message in messages if message.get("role") == "user"), messages[0])
    return str(asked.get("content") or "")[:OPENING]
