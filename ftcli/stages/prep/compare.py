"""The second pass: what becomes of each row beside all the others.

Everything here goes by content and seed: the order of the input, the number of processes and where files lie change nothing.
Rows stay on disk; the columns say which of them must be read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from ftcli.core.errors import BadData
from ftcli.core.stage import Context
from ftcli.data.conflicts import answer_text as last_answer
from ftcli.data.conflicts import judge, label_of
from ftcli.data.contamination import EvaluationIndex
from ftcli.data.dedup import kept_of, rank_by, target_text, whole_text
from ftcli.data.near import Clusters, Columns, assign_leaders
from ftcli.data.rows import Row
from ftcli.data.shingles import Shingles, shingle
from ftcli.data.split import draws
from ftcli.data.texts import prompt_text
from ftcli.stages.prep.chunks import Store
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.decisions import (
    CONFLICT,
    CONTAMINATED,
    EXACT,
    NEAR,
    NEVER,
    OVER_LIMIT,
    Decisions,
    Indices,
    blocks_of,
    ids_of,
)
from ftcli.stages.prep.plan import Plan, prompts_of
from ftcli.stages.prep.splits import split

MOST_LABELS = 1000
MASS_SHARE = 0.05
MASS_ROWS = 20
"""Fewer rows in a cluster are no mass, whatever their share."""


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
    for rows in blocks_of(decisions.kept):
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
    rows = rows[store.columns["label"][rows]]
    _, first = np.unique(store.columns["answer"][rows], return_index=True)
    labels: set[str] = set()
    for block in blocks_of(rows[first]):
        labels |= {label for row in store.rows(block) if (label := label_of(last_answer(row))) is not None}
        if len(labels) > MOST_LABELS:
            break
    return min(len(labels), MOST_LABELS)


def _view(store: Store, rows: Indices, text_of: Callable[[Row], str]) -> Callable[[Indices], Shingles]:
    """The shingles of one text of each of ``rows`` by place, read from disk when asked for."""
    return lambda places: shingle([text_of(row) for row in store.rows(rows[places])])
