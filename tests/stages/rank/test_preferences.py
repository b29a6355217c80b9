"""Expected values are counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftcli.data.rows import RowType, row_type
from ftcli.human.tasks import Item, Judgement
from ftcli.stages.rank.config import RankConfig
from ftcli.stages.rank.preferences import Preferences, preferences
from ftcli.stages.rank.questions import Questions
from tests.stages.rank.judging import item_of


def vote(item: Item, grader: str, ranks: str = "", **others: Any) -> Judgement:
    """``ranks`` has a digit for each distinct answer of ``item``."""
    given = {one.id: int(rank) for one, rank in zip(item.distinct, ranks, strict=True)} if ranks else {}
    order = tuple(one.id for one in item.distinct)
    fields = {"verdict": "ranked", "ranks": given, "order": order, **others}
    return Judgement(task="t", item=item.id, grader=grader, **fields)


def made(item: Item, votes: Sequence[Judgement], **settings: Any) -> Preferences:
    return preferences(RankConfig(**settings), Questions([item], {item.id: "row-7"}), votes)


def pairs(found: Preferences) -> list[tuple[str, str]]:
    return [
        (row["chosen"][0]["content"], row["rejected"][0]["content"]) for rows in found.rows.values() for row in rows
    ]


def test_a_ranking_of_three_gives_three_pairs_and_a_ranking() -> None:
    found = made(item_of("x", "y", "z"), [vote(item_of("x", "y", "z"), "ann", "213")])
    assert pairs(found) == [("y", "x"), ("x", "z"), ("y", "z")]
    assert found.rows["train"][0] == {
        "id": "row-7#0",
        "prompt": [{"role": "user", "content": "Q"}],
        "chosen": [{"role": "assistant", "content": "y"}],
        "rejected": [{"role": "assistant", "content": "x"}],
        "meta": {
            "prompt_id": "row-7",
            "item": "item",
            "source": "human",
            "n_votes": 1,
            "graders": ["ann"],
            "agree": 1.0,
            "chosen_from": "b",
            "rejected_from": "a",
        },
    }
    ranking = found.rankings["train"][0]
    assert ranking["candidates"] == [{"content": text, "rank": rank} for text, rank in (("x", 2), ("y", 1), ("z", 3))]
    assert (row_type(found.rows["train"][0]), row_type(ranking)) == (RowType.PREFERENCE, RowType.RANKING)
    assert found.counts() == {
        "pairs": 3,
        "ties": 0,
        "split": 0,
        "both_bad": 0,
        "low_agreement": 0,
        "unjudged": 0,
        "rankings": 1,
    }


def test_the_majority_of_graders_decides_and_ties_count_against_agreement() -> None:
    item = item_of("x", "y")
    votes = [vote(item, "ann", "12"), vote(item, "bob", "12"), vote(item, "cat", "21"), vote(item, "dan", "11")]
    found = made(item, votes)
    assert pairs(found) == [("x", "y")]
    assert found.rows["train"][0]["meta"]["agree"] == 0.5
    assert found.rows["train"][0]["meta"]["n_votes"] == 4
    assert made(item, votes, min_agreement=0.5).pairs == 1
    assert made(item, votes, min_agreement=0.6).left_out == {"low_agreement": 1}


def test_what_has_no_winner_gives_no_pair_and_is_counted_by_reason() -> None:
    item = item_of("x", "y")
    bad, skip = vote(item, "bob", verdict="both_bad"), vote(item, "ann", verdict="skip")
    assert made(item, [vote(item, "ann", "11")]).left_out == {"ties": 1}
    assert made(item, [vote(item, "ann", "12"), vote(item, "bob", "21")]).left_out == {"split": 1}
    assert made(item, [bad]).left_out == {"both_bad": 1}
    assert made(item, [skip]).left_out == {"unjudged": 1}
    assert made(item, [skip, vote(item, "bob", "12", is_repeat=True)]).left_out == {"unjudged": 1}, (
        "a repeat is no vote"
    )
    assert pairs(made(item, [bad, vote(item, "ann", "12")])) == [("x", "y")]
    assert made(item, [bad]).counts()["rankings"] == 0
    assert made(item_of("same", "same"), []).counts()["unjudged"] == 0, "nobody was asked"


def test_rankings_are_ordered_by_mean_rank_and_equal_means_tie() -> None:
    item = item_of("x", "y", "z")
    found = made(item, [vote(item, "ann", "123"), vote(item, "bob", "213")])
    assert [one["rank"] for one in found.rankings["train"][0]["candidates"]] == [1, 1, 2]
    assert pairs(found) == [("x", "z"), ("y", "z")]
    assert found.left_out == {"split": 1}


def test_an_answer_that_two_models_gave_is_one_answer_of_both() -> None:
    item = item_of("x", "y", "x")
    found = made(item, [vote(item, "ann", "12")])
    assert [row["meta"]["chosen_from"] for row in found.rows["train"]] == ["a + c"]
    assert found.rankings["train"][0]["meta"]["from"] == ["a + c", "b"]


def test_all_rows_of_a_held_out_prompt_stay_held_out() -> None:
    item = item_of("x", "y", "z", split="test")
    found = made(item, [vote(item, "ann", "123")])
    assert {split: len(rows) for split, rows in found.rows.items()} == {"train": 0, "validation": 0, "test": 3}
    assert {split: len(rows) for split, rows in found.rankings.items()} == {"train": 0, "validation": 0, "test": 1}


def test_a_margin_is_the_strength_of_those_who_prefer_the_winner_and_only_when_asked_for() -> None:
    item = item_of("x", "y")
    votes = [
        vote(item, "ann", "12", strength=6),
        vote(item, "bob", "12", strength=3),
        vote(item, "cat", "21", strength=7),
        vote(item, "dan", "12"),
    ]
    assert "margin" not in made(item, votes).rows["train"][0]["meta"]
    asked = {"answers_per_prompt": 2, "margin": "strength"}
    assert made(item, votes, **asked).rows["train"][0]["meta"]["margin"] == 4.5
    assert "margin" not in made(item, votes[3:], **asked).rows["train"][0]["meta"]
