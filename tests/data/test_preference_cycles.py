"""Circles of preferences, and what is dropped against them."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.preference_cycles import Edges, circular_edges, contradicting, preferences

NAMES = st.sampled_from("abcd")
ROWS = st.lists(st.sets(st.tuples(NAMES, NAMES), min_size=1, max_size=3), max_size=8)
POLICIES: tuple[Literal["drop_minority", "drop_all", "keep_first"], ...] = ("drop_minority", "drop_all", "keep_first")


def runs_in_a_circle(rows: list[Edges]) -> bool:
    """By the standard library's topological sort, which also takes a > a for a circle."""
    before: dict[str, set[str]] = {}
    for better, worse in set().union(*rows):
        before.setdefault(worse, set()).add(better)
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        return True
    return False


def reaches(edges: Edges, start: str, end: str) -> bool:
    seen = {start}
    while True:
        further = {worse for better, worse in edges if better in seen} - seen
        if not further:
            return end in seen
        seen |= further


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_pairs_of_rows() -> None:
    assert preferences({"chosen": say(" a\n"), "rejected": say("A")}) == {("a", "A")}
    candidates = [{"content": text, "rank": rank} for text, rank in (("b", 2), ("a", 1), ("c", 2))]
    assert preferences({"candidates": candidates}) == {("a", "b"), ("a", "c")}


def test_tool_calls_are_part_of_an_answer() -> None:
    def call(name: str) -> list[dict[str, Any]]:
        function = {"name": name, "arguments": {}}
        return [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}]

    ((better, worse),) = preferences({"chosen": call("add"), "rejected": call("subtract")})
    assert "add" in better
    assert "subtract" in worse


@given(ROWS)
def test_an_edge_is_circular_if_its_end_leads_back(rows: list[Edges]) -> None:
    edges: Edges = set().union(*rows)
    assert circular_edges(rows) == {(better, worse) for better, worse in edges if reaches(edges, worse, better)}


@given(ROWS)
def test_nothing_is_circular_unless_rows_run_in_a_circle(rows: list[Edges]) -> None:
    assert bool(circular_edges(rows)) == runs_in_a_circle(rows)


@given(ROWS, st.sampled_from(POLICIES), st.randoms(use_true_random=False))
def test_what_is_kept_never_runs_in_a_circle(rows: list[Edges], policy: Any, order: Any) -> None:
    ids = [f"{index:02}" for index in range(len(rows))]
    dropped = contradicting(rows, ids, policy)
    assert not runs_in_a_circle([row for index, row in enumerate(rows) if index not in dropped])
    assert runs_in_a_circle(rows) or not dropped
    places = list(range(len(rows)))
    order.shuffle(places)
    again = contradicting([rows[place] for place in places], [ids[place] for place in places], policy)
    assert sorted(places[index] for index in again) == dropped


@pytest.mark.parametrize(
    ("rows", "policy", "dropped"),
    [
        (["ab", "ba", "ab", "xy"], "report", []),
        (["ab", "ba", "ab", "xy"], "drop_all", [0, 1, 2]),
        (["ab", "ba", "ab", "xy"], "drop_minority", [1]),
        (["ab", "ba", "xy"], "drop_minority", [0, 1]),
        (["ab", "ba", "bc", "bc", "ca"], "drop_minority", [0, 1]),  # a tie may be all that closes a circle
        (["ab", "ba", "ab", "xy"], "keep_first", [1]),
        (["ab", "bc", "ca"], "keep_first", [2]),
        (["ab", "bc", "ca", "ab", "bc", "ca", "xa"], "drop_minority", [0, 1, 2, 3, 4, 5]),  # majorities in a circle
        (["ab", "bc", "ca", "ac", "ac"], "drop_minority", [2]),
        (["aa", "ab"], "drop_minority", [0]),
        (["aa", "ab"], "keep_first", [0]),
    ],
)
def test_policies_by_hand(rows: list[str], policy: Any, dropped: list[int]) -> None:
    ids = [f"{index}" for index in range(len(rows))]
    assert contradicting([{(pair[0], pair[1])} for pair in rows], ids, policy) == dropped
