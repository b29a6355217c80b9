"""Groups of rows that no split may tear apart, their splits, and the proof that nothing leaks from one into another."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftcli.data.conflicts import LABEL_VOCABULARY, possible_mislabels
from ftcli.data.dedup import opening_text, rank_by
from ftcli.data.hashing import offsets_of
from ftcli.data.leakage import cross_pairs
from ftcli.data.minhash import band_keys
from ftcli.data.near import Columns, assign_leaders, group, merge
from ftcli.data.rows import SPLITS
from ftcli.data.shingles import Shingles, boilerplate_of, drop, shingle
from ftcli.data.similar import Pairs
from ftcli.data.split import split_groups
from ftcli.data.synthetic import seed_ids
from ftcli.stages.prep.chunks import ID_DIGITS, Store
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.decisions import NEVER, Decisions, Indices, blocks_of

GROUP_BANDS, GROUP_ROWS = 28, 5
"""A pair at similarity .7 shares a band with probability .994; what is missed is found before the split stands."""
BOILERPLATE_ROWS = 4000
"""Rows whose openings show what all openings share."""
MISLABEL_SIMILARITY = 0.9
ROW_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}(#\d+)?")
KEY_DIGITS = 16
"""Hexadecimal digits of the first number of an exact key, with which a row's id begins; an id ends with # and a number where its
source has a weight."""


def split(store: Store, decisions: Decisions, config: PrepConfig, scratch: Path) -> None:
    """Groups that must not be torn apart, their splits, and the proof that no prompt leaks from one into another."""
    rows = decisions.kept
    part = store.columns[rows]
    boilerplate = boilerplate_of(
        shingle([opening_text(row) for row in store.rows(_sample(decisions, rows, BOILERPLATE_ROWS))])
    )
    shingles, keys = shingled(store, rows, boilerplate, scratch / "openings.u32")
    openings = shingles.take
    rank = rank_by(part["exact"][:, 0], part["exact"][:, 1])
    columns = Columns(keys, rank, part["size"].astype(np.int64), [openings])
    equal = [part["opening"], part["prompt"]]
    if config.group_by:
        own = part["group"].copy()
        own[own == 0] = part["exact"][:, 0][own == 0]  # rows without a value are no group
        equal.append(own)
    labels = group(columns, config.group_threshold, equal)
    decisions.conflict_counts["possible_mislabels"] = mislabels(store, rows, columns, part["guard"], decisions)
    shares = {"train": 1 - config.validation_share - config.test_share}
    shares |= {"validation": config.validation_share, "test": config.test_share}
    stratum = part["stratum"] if config.stratify_by else None
    checked = np.zeros(len(rows), np.int8)
    bound = bound_to_train(store, rows)
    while True:
        parts = split_groups(labels, part["opening"], shares, config.seed, stratum, bound)
        # Of two rows that stayed where they were, nothing new can be said.
        leaks = leaking(openings, parts.part, np.flatnonzero(parts.part != checked), config.group_threshold)
        if not len(leaks.left):
            break
        labels, checked = merge(labels, rank, leaks), parts.part
    decisions.split[rows] = parts.part
    decisions.group[rows] = rows[labels]
    decisions.notes += parts.warnings
    if parts.bound:
        decisions.notes.append(
            f"{parts.bound} rows stay in train: {int(part['synthetic'].sum())} that a model wrote, their seeds, and rows like these"
        )
    exact = sum(
        len(np.intersect1d(part["opening"][parts.part == one], part["opening"][parts.part == other]))
        for one in range(len(SPLITS))
        for other in range(one)
    )
    decisions.leakage = {
        "threshold": config.group_threshold,
        "exact_pairs": exact,
        "near_pairs": len(leaks.left),
        "held_out_rows": int((parts.part > 0).sum()),
        "groups": sum(parts.groups.values()),
        "largest_group": parts.largest_group,
        "largest_group_share": round(parts.largest_group / max(len(rows), 1), 6),
        "boilerplate_shingles": len(boilerplate),
    }
    if exact:
        raise RuntimeError(f"{exact} prompts are in two splits")


def bound_to_train(store: Store, rows: Indices) -> NDArray[np.bool_]:
    """Which of ``rows`` must not be held out: those that a model wrote, and the seeds that they were made from, known by their
    ids. One beside the other in test and train would be a leak, and what a model wrote measures nothing."""
    part = store.columns[rows]
    seeds = {
        int(name[:KEY_DIGITS], 16)
        for block in blocks_of(rows[part["synthetic"]])
        for row in store.rows(block)
        for name in seed_ids(row["meta"])
        if ROW_ID.fullmatch(name)
    }
    is_bound: NDArray[np.bool_] = part["synthetic"] | np.isin(part["exact"][:, 0], np.array(sorted(seeds), np.uint64))
    return is_bound


def shingled(
    store: Store, rows: Indices, boilerplate: NDArray[np.uint32], path: Path
) -> tuple[Shingles, NDArray[np.uint32]]:
    """The shingles of the openings of ``rows``, which are on disk and not in memory, and their band keys."""
    sizes, keys = [], []
    with path.open("wb") as file:
        for block in blocks_of(rows):
            found = drop(shingle([opening_text(row) for row in store.rows(block)]), boilerplate)
            found.values.tofile(file)
            sizes.append(found.sizes)
            keys.append(band_keys(found, GROUP_BANDS, GROUP_ROWS))
    values = np.memmap(path, np.uint32, "r") if path.stat().st_size else np.zeros(0, np.uint32)
    return Shingles(values, offsets_of(np.concatenate(sizes))), np.concatenate(keys)


def mislabels(
    store: Store, rows: Indices, openings: Columns, guard: NDArray[np.uint64], decisions: Decisions
) -> list[dict[str, Any]]:
    """Pairs of nearly equal prompts with different labels, where the answers are labels at all."""
    vocabulary = decisions.conflict_counts["label_vocabulary"]
    if not 1 < vocabulary <= LABEL_VOCABULARY:
        return []
    pairs = assign_leaders(openings, guard, NEVER, MISLABEL_SIMILARITY).flagged
    found = zip(store.rows(rows[pairs.left]), store.rows(rows[pairs.right]), pairs.jaccard.tolist(), strict=True)
    return possible_mislabels([pair for pair in found if "messages" in pair[0]], label_vocabulary=vocabulary)


def leaking(view: Callable[[Indices], Shingles], split: NDArray[np.int8], some: Indices, threshold: float) -> Pairs:
    """Pairs of similar prompts in different splits, one of them among ``some``, as places; found exactly."""
    if not len(some):
        return Pairs.joined([])
    blocks = (view(block) for block in blocks_of(np.arange(len(split))))
    pairs = cross_pairs(view(some), blocks, threshold, (split[some], split))
    return Pairs(some[pairs.left], pairs.right, pairs.jaccard)


def _sample(decisions: Decisions, rows: Indices, limit: int) -> Indices:
    chosen: Indices = rows[decisions.draws[rows].argsort(kind="stable")][:limit]
    return chosen
