"""Pairs from rankings. Conversion of rankings is in test_formats."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.rankings import pairs_of
from ftcli.data.rows import RowType, row_type

PROMPT = [{"role": "user", "content": "Q"}]


def ranking(*ranks: int) -> dict[str, Any]:
    candidates = [{"content": f"answer {number}", "rank": rank} for number, rank in enumerate(ranks)]
    return {"id": "r", "prompt": PROMPT, "candidates": candidates, "meta": {"file": "f", "line": 1}}


def sides(row: dict[str, Any]) -> tuple[str, str]:
    return row["chosen"][0]["content"], row["rejected"][0]["content"]


def test_a_ranking_with_a_tie_gives_the_pairs_that_are_none() -> None:
    """By hand: 1 is better than 0 and 2, which are equal."""
    first, second = pairs_of(ranking(2, 1, 2))
    assert first == {
        "id": "r#0",
        "prompt": PROMPT,
        "chosen": [{"role": "assistant", "content": "answer 1"}],
        "rejected": [{"role": "assistant", "content": "answer 0"}],
        "meta": {"file": "f", "line": 1, "prompt_id": "r", "chosen_rank": 1, "rejected_rank": 2},
    }
    assert sides(second) == ("answer 1", "answer 2")
    assert second["id"] == "r#1"
    assert row_type(first) is RowType.PREFERENCE


@pytest.mark.parametrize(("ranks", "count"), [((1, 2, 3, 4), 6), ((1, 1, 1), 0), ((1, 2), 1), ((1, 1, 2, 2), 4)])
def test_the_number_of_pairs_is_that_of_untied_twos(ranks: tuple[int, ...], count: int) -> None:
    assert len(list(pairs_of(ranking(*ranks)))) == count


@given(st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_every_pair_prefers_the_lower_rank_and_no_two_are_alike(ranks: list[int]) -> None:
    pairs = list(pairs_of(ranking(*ranks)))
    level = {f"answer {number}": rank for number, rank in enumerate(ranks)}
    assert all(level[chosen] < level[rejected] for chosen, rejected in map(sides, pairs))
    assert len({sides(row) for row in pairs}) == len(pairs) == len({row["id"] for row in pairs})
