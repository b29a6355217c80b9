from __future__ import annotations

import dataclasses
import math

import pytest

from ftcli.core.errors import Diverged
from ftcli.models.heads import random_head
from ftcli.rl.preferences import Comparison
from ftcli.rl.reward_card import reward_card
from ftcli.rl.reward_model import RewardModel
from ftcli.rl.sequences import Exchange
from ftcli.stages.reward.judge import judge
from tests.rl.conftest import PAD, tiny_adapter

SHORT, LONG, OTHER = Exchange([3, 4], [7, 1]), Exchange([3, 4], [8, 9, 5, 1]), Exchange([6], [5, 5, 5, 5, 1])
COMPARISONS = [Comparison([SHORT, LONG], [(0, 1)]), Comparison([OTHER, SHORT], [(0, 1)])]


def reward() -> RewardModel:
    return RewardModel(tiny_adapter().eval(), random_head(64, seed=0), PAD)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 16])
def test_the_judgement_agrees_with_scores_taken_one_by_one(micro_batch_size: int) -> None:
    model = reward()
    short, long, other = (model.score_exchanges([one])[0] for one in (SHORT, LONG, OTHER))
    first, second = judge(model, COMPARISONS, micro_batch_size)
    assert first.scores == pytest.approx([short, long], abs=1e-5)
    assert second.scores == pytest.approx([other, short], abs=1e-5)
    assert (first.lengths, second.lengths) == ([2, 4], [5, 2])
    card = reward_card([first, second])
    margins = [short - long, other - short]
    assert card["accuracy"] == sum(margin > 0 for margin in margins) / 2
    assert card["log_loss"] == pytest.approx(sum(math.log(1 + math.exp(-margin)) for margin in margins) / 2, abs=1e-5)


def test_ties_of_people_are_no_pairs() -> None:
    third = Exchange([3, 4], [11, 1])
    (found,) = judge(reward(), [Comparison([SHORT, LONG, third], [(0, 1)], [(1, 2)])], 4)
    assert (found.pairs, found.ties) == ([(0, 1)], [(1, 2)])


@pytest.mark.parametrize(
    ("meta", "source"),
    [({"source": "web", "file": "a.jsonl"}, "web"), ({"file": "a.jsonl", "line": 3}, "a.jsonl"), ({}, "")],
)
def test_the_source_is_what_prep_wrote_into_the_row(meta: dict[str, object], source: str) -> None:
    answers = [Exchange([3], [4, 1], row={"meta": meta}), Exchange([3], [5, 1])]
    assert judge(reward(), [Comparison(answers, [(0, 1)])], 4)[0].source == source


def test_scores_that_are_not_finite_end_the_stage() -> None:
    model = reward()
    model.head.weight.data.fill_(math.inf)
    with pytest.raises(Diverged, match="not finite"):
        judge(dataclasses.replace(model), COMPARISONS, 4)
