"""Preferences of one prompt that run in a circle: a > b and b > a, or longer ways round; and which rows to drop against it.

A preference row states one pair, a ranking all pairs of its candidates but the ties. Preferences may be about case or layout, so
answers are compared as they are, white space at the ends aside. An answer preferred to itself is a circle too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import sparse

from ftcli.data.rows import Row
from ftcli.data.texts import said

Policy = Literal["report", "drop_minority", "drop_all", "keep_first"]
Edges = set[tuple[str, str]]
"""(better, worse) pairs of answers."""


def preferences(row: Row) -> Edges:
    """The pairs that a preference or ranking row states."""
    if "chosen" in row:
        return {(said_by(row["chosen"]), said_by(row["rejected"]))}
    ranked = [(candidate["rank"], candidate["content"].strip()) for candidate in row["candidates"]]
    return {(better, worse) for rank, better in ranked for other, worse in ranked if rank < other}


def said_by(messages: Iterable[Mapping[str, Any]]) -> str:
    """The texts of ``messages`` with their tool calls, in paragraphs."""
    return "\n\n".join(text for message in messages if (text := said(dict(message)))).strip()


def circular_edges(edges: Iterable[Edges]) -> Edges:
    """The edges that lie on a circle: both ends are in one strongly connected component."""
    from scipy.sparse import csgraph  # noqa: PLC0415  (slow to import, and most data are no preferences)

    every = sorted(set().union(*edges))
    number = {text: index for index, text in enumerate(dict.fromkeys(text for edge in every for text in edge))}
    ends = np.array([[number[text] for text in edge] for edge in every], dtype=np.int64).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(every)), (ends[:, 0], ends[:, 1])), shape=(len(number), len(number)))
    _, component = csgraph.connected_components(graph, connection="strong")
    return {edge for edge, (better, worse) in zip(every, ends, strict=True) if component[better] == component[worse]}


def contradicting(edges: Sequence[Edges], ids: Sequence[str], policy: Policy) -> list[int]:
    """Positions of the rows that ``policy`` drops, ascending; without them nothing runs in a circle, but under ``report``.

    ``drop_minority`` drops rows with a pair that no more rows state than state its reverse, and then, as majorities may run in a
    circle too, all that still do. ``keep_first`` goes by id and drops rows that would close a circle.
    """
    circular = circular_edges(edges)
    held = [index for index, own in enumerate(edges) if own & circular]
    if policy == "report":
        return []
    if policy == "drop_all":
        return held
    if policy == "keep_first":
        return _later(edges, sorted(held, key=lambda index: ids[index]))
    votes = Counter(edge for index in held for edge in edges[index] & circular)
    lost = {edge for edge in circular if votes[edge] <= votes[edge[1], edge[0]]}
    kept = [index for index in held if not edges[index] & lost]
    still = circular_edges(edges[index] for index in kept)
    return [index for index in held if edges[index] & (lost | still)]


def _later(edges: Sequence[Edges], by_id: Iterable[int]) -> list[int]:
    """The rows that close a circle with earlier ones."""
    kept: list[Edges] = []
    dropped = []
    for index in by_id:
        if circular_edges([*kept, edges[index]]):
            dropped.append(index)
        else:
            kept.append(edges[index])
    return sorted(dropped)
