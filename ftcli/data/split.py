"""Train, validation and test, split by groups that must not be torn apart; and the sampling of a limited number of rows.

Both go by hashes of the rows' own text, so the order of the input decides nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ftcli.data.dedup import group_key
from ftcli.data.records import Reason, Reject, raw_json
from ftcli.data.rows import SPLITS, Row

FEW_GROUPS = 1000
"""Below this number of groups the drawn shares would miss the wanted ones by too much."""


def draw(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1) that depends on the arguments only, as if drawn at random for ``key``."""
    digest = hashlib.blake2b(f"{purpose}:{seed}:{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def sample_rows(rows: Sequence[Row], limit: int | None, seed: int) -> Iterator[Row | Reject]:
    """Keep the ``limit`` rows with the lowest draws, in their order; refuse the rest."""
    ranked = sorted(rows, key=lambda row: (draw(seed, "limit", row["id"]), row["id"]))
    kept = {row["id"] for row in ranked[:limit]}
    for row in rows:
        if row["id"] in kept:
            yield row
        else:
            detail = f"not among the {limit} rows drawn"
            yield Reject(row["meta"]["file"], row["meta"]["line"], Reason.OVER_LIMIT, detail, raw_json(row))


def split_rows(rows: Sequence[Row], validation_share: float, test_share: float, seed: int) -> dict[str, list[Row]]:
    """Rows of each split; rows with the same `group_key` are never in two splits.

    The order within a split is drawn too, so that its first N rows are a random sample of it.
    """
    keys = [group_key(row) for row in rows]
    shares = {"train": 1 - validation_share - test_share, "validation": validation_share, "test": test_share}
    split_of = assign_groups(Counter(keys), shares, seed)
    parts: dict[str, list[Row]] = {split: [] for split in SPLITS}
    drawn = sorted(zip(rows, keys, strict=True), key=lambda pair: (draw(seed, "order", pair[0]["id"]), pair[0]["id"]))
    for row, key in drawn:
        parts[split_of[key]].append(row)
    _check_disjoint(parts)
    return parts


def assign_groups(sizes: Mapping[str, int], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """The split of each group, given its number of rows and each split's share (they sum to 1).

    Many groups: each draws a number, which the cumulated shares cut, so adding rows never moves an old group. Few
    groups: the largest first, each to the split that lacks most; and where there are enough groups, no wanted split
    stays empty.
    """
    if len(sizes) >= FEW_GROUPS:
        return {key: _cut(draw(seed, "split", key), shares) for key in sizes}
    ranked = sorted(sizes, key=lambda key: (-sizes[key], draw(seed, "split", key), key))
    lacking = _whole_targets(sum(sizes.values()), shares)
    assigned: dict[str, str] = {}
    for key in ranked:
        split = max(lacking, key=lambda name: lacking[name])  # the first of equals, so train before the others
        assigned[key] = split
        lacking[split] -= sizes[key]
    _fill_empty(assigned, ranked, list(lacking))
    return assigned


def _cut(drawn: float, shares: Mapping[str, float]) -> str:
    below = 0.0
    for split, share in shares.items():
        below += share
        if drawn < below:
            return split
    return next(iter(shares))  # rounding left a gap under 1


def _whole_targets(rows: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Rows wanted in each split with a share, at least one; the first takes what rounding leaves."""
    first, *others = (split for split, share in shares.items() if share > 0)
    targets = {split: max(1, round(shares[split] * rows)) for split in others}
    return {first: max(1, rows - sum(targets.values())), **targets}


def _fill_empty(assigned: dict[str, str], ranked: list[str], splits: list[str]) -> None:
    """Give each empty split the smallest group of a split that has several."""
    for split in splits:
        held = Counter(assigned.values())
        spare = [key for key in ranked if held[assigned[key]] > 1]
        if not held[split] and spare:
            assigned[spare[-1]] = split


def _check_disjoint(parts: Mapping[str, Sequence[Row]]) -> None:
    seen: dict[str, str] = {}
    for split, rows in parts.items():
        for row in rows:
            other = seen.setdefault(group_key(row), split)
            if other != split:
                raise RuntimeError(f"row {row['id']} is in {split}, its group in {other}")
