"""The second pass: what becomes of each row beside all the others.

Everything here goes by content and seed: the order of the input, the number of processes and where files lie change nothing.
Rows stay on disk; the columns say which of them must be read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftcli.core.errors import BadData
from ftcli.core.stage import Context
from ftcli.data.conflicts import LABEL_VOCABULARY, judge, label_of, possible_mislabels
from ftcli.data.conflicts import answer_text as last_answer
from ftcli.data.contamination import EvaluationIndex
from ftcli.data.dedup import kept_of, opening_text, rank_by, target_text, whole_text
from ftcli.data.hashing import offsets_of
from ftcli.data.leakage import cross_pairs
from ftcli.data.minhash import band_keys
from ftcli.data.near import Clusters, Columns, assign_leaders, group, merge
from ftcli.data.pairs import Pairs
from ftcli.data.records import Reason
from ftcli.data.rows import SPLITS, Row
from ftcli.data.shingles import Kind, Shingles, boilerplate_of, drop, shingle
from ftcli.data.split import draws, split_groups
from ftcli.data.texts import prompt_text
from ftcli.stages.prep.chunks import Store, row_id
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.plan import Plan, prompts_of

Indices = NDArray[np.int64]

REFUSALS = (
    ("exact duplicates", Reason.EXACT_DUPLICATE),
    ("near duplicates", Reason.NEAR_DUPLICATE),
    ("contamination", Reason.CONTAMINATED),
    ("conflicts", Reason.CONFLICT),
    ("limit", Reason.OVER_LIMIT),
)
"""Step and reason of each refusal code, which counts from 1; 0 is kept."""
EXACT, NEAR, CONTAMINATED, CONFLICT, OVER_LIMIT = range(1, 6)
SHINGLE: Kind = "char5"
GROUP_BANDS, GROUP_ROWS = 28, 5
"""A pair at similarity .7 shares a band with probability .994; what is missed is found before the split stands."""
BLOCK_ROWS = 8192
"""Rows whose texts are in memory at a time."""
BOILERPLATE_ROWS = 4000
"""Rows whose openings show what all openings share."""
NEVER = 1.1
"""A similarity that no two rows have."""
MISLABEL_SIMILARITY = 0.9
MASS_SHARE = 0.05
MASS_ROWS = 20
"""Fewer rows in a cluster are no mass, whatever their share."""


@dataclass
class Decisions:
    """For each row [n]: why it is refused (0: kept), the row it repeats (-1: none), its split, group, and draw in [0, 1)."""

    refusal: NDArray[np.uint8]
    repeats: Indices
    similarity: NDArray[np.float64]
    split: NDArray[np.int8]
    group: Indices
    draws: NDArray[np.float64]
    compared: int
    """Rows that came out of the first pass."""
    details: dict[int, str] = field(default_factory=dict)
    flags: list[tuple[int, str, str]] = field(default_factory=list)
    """(row, kind, detail) of what a person should look at."""
    near_pairs: list[tuple[int, int, float, str]] = field(default_factory=list)
    """(row, the row it is like, similarity, removed or flagged)."""
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    duplicates: dict[str, Any] = field(default_factory=dict)
    contamination: list[dict[str, Any]] = field(default_factory=list)
    conflict_counts: dict[str, Any] = field(default_factory=dict)
    leakage: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> Indices:
        return np.flatnonzero(self.refusal == 0)

    def detail(self, store: Store, index: int, reason: str) -> str:
        """Why a row was refused, for rejects.jsonl."""
        if index in self.details:
            return self.details[index]
        if reason == Reason.OVER_LIMIT:
            return "not among the rows drawn (limit)"
        other = store.row(int(self.repeats[index]))
        place = f"{other['meta']['file']}:{other['meta']['line']}, id {other['id']}"
        if reason == Reason.EXACT_DUPLICATE:
            return f"the same as {place}"
        return f"similarity {self.similarity[index]:.3f} to {place}"


def decide(store: Store, plan: Plan, ctx: Context[PrepConfig]) -> Decisions:
    """All decisions, step by step; each sees what the ones before it kept."""
    config, size = ctx.config, len(store)
    decisions = Decisions(
        refusal=np.zeros(size, np.uint8),
        repeats=np.full(size, -1),
        similarity=np.zeros(size),
        split=np.zeros(size, np.int8),
        group=np.arange(size),
        draws=draws(config.seed, "order", ids_of(store.columns["exact"])),
        compared=size,
    )
    columns = store.columns
    rank = rank_by(columns["exact"][:, 0], columns["exact"][:, 1], columns["content"])
    steps = 6

    def progress(done: int, name: str) -> None:
        ctx.events.progress(f"prep: {name}", done, steps)

    progress(0, "exact duplicates")
    exact_duplicates(store, decisions, rank)
    progress(1, "near duplicates")
    near_duplicates(store, decisions, config, plan)
    progress(2, "contamination")
    for artifact in ctx.many("against"):
        contaminated(store, decisions, config, artifact.label, prompts_of(artifact))
    progress(3, "conflicts")
    conflicting(store, decisions, config)
    if config.limit is not None:
        over = decisions.kept
        over = over[draws(config.seed, "limit", ids_of(columns["exact"][over])).argsort(kind="stable")][config.limit :]
        decisions.refusal[over] = OVER_LIMIT
    progress(4, "groups and splits")
    split(store, decisions, config, ctx.scratch)
    progress(steps, "done")
    return decisions


def exact_duplicates(store: Store, decisions: Decisions, rank: Indices) -> None:
    """Of rows with the same exact key, the one of the smallest content digest stays, whatever the order of the input."""
    kept = kept_of(store.columns["exact"], rank)
    is_repeat = kept != np.arange(len(kept))
    decisions.refusal[is_repeat] = EXACT
    decisions.repeats[is_repeat] = kept[is_repeat]
    decisions.duplicates["exact"] = int(is_repeat.sum())


def near_duplicates(store: Store, decisions: Decisions, config: PrepConfig, plan: Plan) -> None:
    """Rows that are nearly another one, which is the longer; both their whole texts and their answers must be alike."""
    rows = decisions.kept
    found = decisions.duplicates
    found |= {"near_removed": 0, "near_flagged": 0, "largest_cluster": 0, "largest_cluster_share": 0.0}
    found |= {
        "policy": config.near_duplicates,
        "threshold": config.near_threshold,
        "flag_threshold": config.flag_threshold,
    }
    if config.near_duplicates == "off" or not len(rows):
        return
    part = store.columns[rows]
    length = part["total_length"].astype(np.int64)
    rank = rank_by(-length, part["exact"][:, 0], part["exact"][:, 1])
    # Each part must be alike: "Deactivate the list" is nearly "Activate the list" once a long equal answer follows.
    views = [_view(store, rows, text_of) for text_of in (whole_text, prompt_text, target_text)]
    remove = config.near_threshold if config.near_duplicates == "remove" else NEVER
    columns = Columns(part["near"], rank, part["size"].astype(np.int64), views)
    clusters = assign_leaders(columns, part["guard"], remove, config.flag_threshold)
    check_mass(clusters, store, rows, config, plan)
    removed = np.flatnonzero(clusters.leader >= 0)
    decisions.refusal[rows[removed]] = NEAR
    decisions.repeats[rows[removed]] = rows[clusters.leader[removed]]
    decisions.similarity[rows[removed]] = clusters.similarity[removed]
    for index in removed.tolist():
        leader = int(clusters.leader[index])
        decisions.near_pairs.append((int(rows[index]), int(rows[leader]), float(clusters.similarity[index]), "removed"))
    for one, other, similarity in zip(*(side.tolist() for side in clusters.flagged), strict=True):
        decisions.near_pairs.append((int(rows[other]), int(rows[one]), similarity, "flagged"))
    found |= {
        "near_removed": len(removed),
        "near_flagged": len(np.unique(clusters.flagged.right)),
        "largest_cluster": clusters.largest,
        "largest_cluster_share": round(clusters.largest / len(rows), 6),
    }


def check_mass(clusters: Clusters, store: Store, kept: Indices, config: PrepConfig, plan: Plan) -> None:
    """Refuse a removal that takes so much that it is likelier a template than copies."""
    if config.allow_mass_dedup:
        return
    rows, source = len(kept), store.columns["source"][kept]
    if clusters.largest > max(MASS_ROWS, MASS_SHARE * rows):
        leader = int(np.bincount(clusters.leader[clusters.leader >= 0]).argmax())
        meta = store.row(int(kept[leader]))["meta"]
        place = f"{meta['file']}:{meta['line']}"
        raise BadData(
            f"one cluster of near-duplicates has {clusters.largest} of {rows} rows",
            f"is {place} a template? Raise --near-threshold, use --near-duplicates flag, or --allow-mass-dedup",
        )
    for number, item in enumerate(plan.sources):
        here = source == number
        gone = int((here & (clusters.leader >= 0)).sum())
        if gone > max(MASS_ROWS, here.sum() / 2):
            raise BadData(
                f"{item.label}: {gone} of {here.sum()} rows are near-duplicates",
                "raise --near-threshold, use --near-duplicates flag, or --allow-mass-dedup",
            )


def contaminated(store: Store, decisions: Decisions, config: PrepConfig, label: str, items: Iterator[str]) -> None:
    """Rows that contain an item of an evaluation set; they are refused wherever they would go, or flagged."""
    index = EvaluationIndex.of(list(items))
    dropped = flagged = 0
    for rows in _blocks(decisions.kept):
        read = store.rows(rows)
        found = index.match([whole_text(row) for row in read], [prompt_text(row) for row in read], config.containment)
        for place in np.flatnonzero(found.contaminated | found.flagged).tolist():
            row = int(rows[place])
            detail = f"{found.containment[place]:.2f} of item {found.item[place] + 1} of {label}"
            if found.contaminated[place] and config.contamination == "drop":
                decisions.refusal[row] = CONTAMINATED
                decisions.details[row] = detail
                dropped += 1
            else:
                decisions.flags.append((row, "contamination", detail))
                flagged += 1
    items_count = len(index.sizes)
    decisions.contamination.append({"label": label, "items": items_count, "dropped": dropped, "flagged": flagged})


def conflicting(store: Store, decisions: Decisions, config: PrepConfig) -> None:
    """Rows of one prompt that contradict each other, and what the policy drops of them."""
    rows = decisions.kept
    part = store.columns[rows]
    order = np.lexsort((part["exact"][:, 1], part["exact"][:, 0], part["prompt"]))
    prompts = part["prompt"][order]
    starts = np.flatnonzero(np.r_[True, prompts[1:] != prompts[:-1]]) if len(rows) else np.zeros(0, np.int64)
    ends = np.r_[starts[1:], len(rows)]
    vocabulary = label_vocabulary(store, rows)
    kinds: Counter[str] = Counter()
    dropped = 0
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        members = rows[order[start:end]]
        conflict = judge(store.rows(members), label_vocabulary=vocabulary, policy=config.conflicts)
        if conflict is None:
            continue
        kinds[conflict.kind] += 1
        decisions.conflicts.append(conflict.to_json())
        for place in conflict.drop:
            index = int(members[place])
            decisions.refusal[index] = CONFLICT
            decisions.details[index] = f"a {conflict.kind} conflict of {len(members)} rows with one prompt"
        dropped += len(conflict.drop)
    decisions.conflicts.sort(key=lambda item: (item["kind"], item["prompt"]))
    decisions.conflict_counts = {
        "prompts": kinds.total(),
        "all_prompts": len(starts),
        "hard": kinds["hard"],
        "soft": kinds["soft"],
        "cycles": kinds["cycle"],
        "labels": kinds["label"],
        "rows_dropped": dropped,
        "label_vocabulary": vocabulary,
        "possible_mislabels": [],
    }


def label_vocabulary(store: Store, rows: Indices) -> int:
    """Different short answers among ``rows``; the count stops where they are too many for labels."""
    _, first = np.unique(store.columns["answer"][rows], return_index=True)
    labels: set[str] = set()
    for index in rows[first].tolist():
        if store.columns["answer_length"][index] > 200 or "messages" not in (row := store.row(index)):
            continue
        label = label_of(last_answer(row))
        if label is not None:
            labels.add(label)
        if len(labels) > 1000:
            break
    return len(labels)


def split(store: Store, decisions: Decisions, config: PrepConfig, scratch: Path) -> None:
    """Groups that must not be torn apart, their splits, and the proof that no prompt leaks from one into another."""
    rows = decisions.kept
    part = store.columns[rows]
    boilerplate = boilerplate_of(
        shingle([opening_text(row) for row in store.rows(_sample(decisions, rows, BOILERPLATE_ROWS))], SHINGLE)
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
    while True:
        parts = split_groups(labels, part["opening"], shares, config.seed, stratum)
        held_out = np.flatnonzero(parts.part > 0)
        leaks = leaking(openings, parts.part, held_out, config.group_threshold)
        if not len(leaks.left):
            break
        labels = merge(labels, rank, leaks)
    decisions.split[rows] = parts.part
    decisions.group[rows] = rows[labels]
    decisions.notes += parts.warnings
    exact = sum(
        len(np.intersect1d(part["opening"][parts.part == one], part["opening"][parts.part == other]))
        for one in range(len(SPLITS))
        for other in range(one)
    )
    decisions.leakage = {
        "threshold": config.group_threshold,
        "exact_pairs": exact,
        "near_pairs": len(leaks.left),
        "held_out_rows": len(held_out),
        "groups": sum(parts.groups.values()),
        "largest_group": parts.largest_group,
        "largest_group_share": round(parts.largest_group / max(len(rows), 1), 6),
        "boilerplate_shingles": len(boilerplate),
    }
    if exact:
        raise RuntimeError(f"{exact} prompts are in two splits")


def shingled(
    store: Store, rows: Indices, boilerplate: NDArray[np.uint32], path: Path
) -> tuple[Shingles, NDArray[np.uint32]]:
    """The shingles of the openings of ``rows``, which are on disk and not in memory, and their band keys."""
    sizes, keys = [], []
    with path.open("wb") as file:
        for block in _blocks(rows):
            found = drop(shingle([opening_text(row) for row in store.rows(block)], SHINGLE), boilerplate)
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


def leaking(view: Callable[[Indices], Shingles], split: NDArray[np.int8], held_out: Indices, threshold: float) -> Pairs:
    """Pairs of similar prompts, one held out and the other in another split, as places; found exactly."""
    found = []
    for one in range(1, len(SPLITS)):
        mine = held_out[split[held_out] == one]
        others = np.flatnonzero(split < one)
        if len(mine) and len(others):
            pairs = cross_pairs(view(mine), (view(block) for block in _blocks(others)), threshold)
            found.append(Pairs(mine[pairs.left], others[pairs.right], pairs.jaccard))
    return Pairs.joined(found)


def ids_of(keys: NDArray[np.uint64]) -> Iterator[str]:
    """The ids of rows with these exact keys [n, 2]."""
    return (row_id(high << 64 | low) for high, low in keys.tolist())


def _view(store: Store, rows: Indices, text_of: Callable[[Row], str]) -> Callable[[Indices], Shingles]:
    """The shingles of one text of each of ``rows`` by place, read from disk when asked for."""
    return lambda places: shingle([text_of(row) for row in store.rows(rows[places])], SHINGLE)


def _blocks(indices: Indices) -> Iterator[Indices]:
    for first in range(0, max(len(indices), 1), BLOCK_ROWS):
        yield indices[first : first + BLOCK_ROWS]


def _sample(decisions: Decisions, rows: Indices, limit: int) -> Indices:
    chosen: Indices = rows[decisions.draws[rows].argsort(kind="stable")][:limit]
    return chosen
