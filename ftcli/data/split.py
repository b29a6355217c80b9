"""Train, validation and test, split by groups that must not be torn apart.

Everything that is drawn goes by hashes of the rows' own text, so the order of the input decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftcli.data.rows import SPLITS

FEW_GROUPS = 1000
"""Below this number of groups the drawn shares would miss the wanted ones by too much."""
MOST_OFF = 0.02
LARGE_GROUP = 0.05
FEW_ROWS = 50


@dataclass(frozen=True, slots=True)
class Split:
    """Where each row goes: ``part`` [n] counts in `SPLITS`. ``rows`` and ``groups`` by split; shares are of the rows that could go
    to any split, which the ``bound`` ones, all in train, could not."""

    part: NDArray[np.int8]
    rows: dict[str, int]
    groups: dict[str, int]
    wanted: dict[str, float]
    largest_group: int
    bound: int = 0

    @property
    def shares(self) -> dict[str, float]:
        free = len(self.part) - self.bound
        if self.bound and not free:
            return dict(self.wanted)  # nothing was missed that could be had
        counts = {split: count - (self.bound if split == SPLITS[0] else 0) for split, count in self.rows.items()}
        return {split: count / max(free, 1) for split, count in counts.items()}

    @property
    def warnings(self) -> list[str]:
        """What a person should know before trusting these splits."""
        told = [
            f"{split} has {share:.1%} of the rows, {self.wanted[split]:.1%} were wanted: groups are not torn apart"
            for split, share in self.shares.items()
            if abs(share - self.wanted[split]) > MOST_OFF
        ]
        if self.largest_group > LARGE_GROUP * len(self.part):
            share = self.largest_group / len(self.part)
            told.append(f"one group of similar prompts has {self.largest_group} rows, {share:.1%} of all")
        told += [
            f"{split} has only {count} rows: what is measured on it is uncertain"
            for split, count in self.rows.items()
            if split != SPLITS[0] and self.wanted[split] > 0 and count < FEW_ROWS
        ]
        return told


def draw(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1) that depends on the arguments only, as if drawn at random for ``key``."""
    return float(draws(seed, purpose, [key])[0])


def draws(seed: int, purpose: str, keys: Iterable[str]) -> NDArray[np.float64]:
    """The `draw` of each key: [n]."""
    start, digest = f"{purpose}:{seed}:", hashlib.blake2b
    digests = b"".join([digest(f"{start}{key}".encode(), digest_size=8).digest() for key in keys])
    drawn: NDArray[np.float64] = (np.frombuffer(digests, ">u8") >> np.uint64(11)) / 2**53
    return drawn


def hexadecimal(keys: NDArray[np.uint64], digits: int) -> Iterator[str]:
    """The first ``digits`` hexadecimal digits of each key, of one or several 64-bit numbers: [n, numbers]."""
    text, width = keys.astype(">u8").tobytes().hex(), 16 * keys.shape[1]
    return (text[first : first + digits] for first in range(0, len(text), width))


def split_groups(
    groups: NDArray[np.int64],
    keys: NDArray[np.uint64],
    shares: Mapping[str, float],
    seed: int,
    strata: NDArray[Any] | None = None,
    bound: NDArray[np.bool_] | None = None,
) -> Split:
    """Assign rows to splits; rows of one group [n] are never in two.

    ``shares`` has each split's share of the rows, they sum to 1. The lowest of its rows' ``keys`` [n] draws a group's
    number: take keys of the prompts, and more answers to a prompt do not move its group.

    Many groups: the cumulated shares cut the drawn numbers, so more rows never move an old group, but one that is too
    large for the split drawn goes to train. Few groups, or ``strata`` [n] whose values every split shall have in equal
    shares: the largest first, each to the split that lacks most of its stratum's rows, and what a stratum leaves lacking
    passes to the next one. A group's stratum is the one most of its rows have.

    Groups with a row that is ``bound`` [n] go to train, and the shares are of the rows of the others: which of these are held out
    does not depend on them.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    lowest = np.full(len(sizes), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, group, keys)
    drawn = draws(seed, "split", hexadecimal(lowest[:, None], 16))
    wanted = np.array([shares[split] for split in SPLITS])
    is_free = np.ones(len(sizes), dtype=bool)
    if bound is not None:
        is_free[group[bound]] = False
    part = np.zeros(len(sizes), dtype=np.int8)
    stratum = np.zeros(len(sizes), dtype=np.int64) if strata is None else _strata(group, strata, len(sizes))
    free = sizes[is_free], drawn[is_free], lowest[is_free], stratum[is_free]
    part[is_free] = _assigned(*free, wanted, is_stratified=strata is not None)
    return Split(
        part[group],
        dict(zip(SPLITS, np.bincount(part[group], minlength=len(SPLITS)).tolist(), strict=True)),
        dict(zip(SPLITS, np.bincount(part, minlength=len(SPLITS)).tolist(), strict=True)),
        dict(shares),
        int(sizes.max(initial=0)),
        int(sizes[~is_free].sum()),
    )


def _assigned(
    sizes: NDArray[np.int64],
    drawn: NDArray[np.float64],
    lowest: NDArray[np.uint64],
    stratum: NDArray[np.int64],
    wanted: NDArray[np.float64],
    *,
    is_stratified: bool,
) -> NDArray[np.int8]:
    """The split of each group."""
    if len(sizes) >= FEW_GROUPS and not is_stratified:
        return _cut(sizes, drawn, wanted)
    ranked = np.lexsort((lowest, drawn, -sizes))
    return _fill_empty(_most_lacking(sizes, ranked, stratum, wanted), ranked, wanted)


def _cut(sizes: NDArray[np.int64], drawn: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int8]:
    part = np.searchsorted(np.cumsum(wanted), drawn, side="right")
    part[part == len(wanted)] = 0  # rounding left a gap under 1
    part[sizes > wanted[part] * sizes.sum()] = 0
    return part.astype(np.int8)


def _strata(group: NDArray[np.int64], strata: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The stratum of each group, as a number: 0 for the one with most rows, of equals the one with the lower value."""
    values, stratum, rows = np.unique(strata, return_inverse=True, return_counts=True)
    place = np.argsort(np.argsort(-rows, kind="stable"))[stratum]
    pairs, held = np.unique(group * len(values) + place, return_counts=True)
    order = np.lexsort((pairs, -held, pairs // len(values)))
    first = order[np.diff(pairs[order] // len(values), prepend=-1) > 0]
    found = np.zeros(count, dtype=np.int64)
    found[pairs[first] // len(values)] = pairs[first] % len(values)
    return found


def _most_lacking(
    sizes: NDArray[np.int64], ranked: NDArray[np.int64], stratum: NDArray[np.int64], wanted: NDArray[np.float64]
) -> NDArray[np.int8]:
    part = np.zeros(len(sizes), dtype=np.int8)
    rows = np.bincount(stratum, weights=sizes).tolist()
    lacking = [0.0] * len(wanted)
    last = -1
    for group in ranked[np.argsort(stratum[ranked], kind="stable")].tolist():
        if stratum[group] != last:
            last = int(stratum[group])
            lacking = [rest + share * rows[last] for rest, share in zip(lacking, wanted.tolist(), strict=True)]
        most = max(range(len(lacking)), key=lambda split: (wanted[split] > 0, round(lacking[split], 9)))
        part[group] = most  # the first of equals, so train before the others
        lacking[most] -= int(sizes[group])
    return part


def _fill_empty(part: NDArray[np.int8], ranked: NDArray[np.int64], wanted: NDArray[np.float64]) -> NDArray[np.int8]:
    """Give each wanted split that is empty the smallest group of a split that has several."""
    for split in np.flatnonzero(wanted > 0).tolist():
        held = np.bincount(part, minlength=len(wanted))
        spare = ranked[held[part[ranked]] > 1]
        if not held[split] and len(spare):
            part[spare[-1]] = split
    return part
