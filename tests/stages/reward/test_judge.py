from __future__ import annotations

import math

import pytest

from ftcli.models.heads import random_head
from ftcli.rl.preferences import Comparison
from ftcli.rl.reward_model import RewardModel
from ftcli.rl.sequences import Exchange
from ftcli.stages.reward.judge import judge
from tests.rl.conftest import PAD, tiny_adapter

SHORT, LONG, OTHER = Exchange([3, 4], [7, 1]), Exchange([3, 4], [8, 9, 5, 1]), Exchange([6], [5, 5, 5, 5, 1])
COMPARISONS = [Comparison([SHORT, LONG], [(0, 1)]), Comparison([OTHER, SHORT], [(0, 1)])]


def test_the_report_agrees_with_scores_taken_one_by_one() -> None:
    model = RewardModel(tiny_adapter().eval(), random_head(64, seed=0), PAD)
    short, long, other = (model.score_exchanges([one])[0] for one in (SHORT, LONG, OTHER))
    found = judge(model, COMPARISONS, micro_batch_size=16)
    margins = [short - long, other - short]
    assert found["accuracy"] == sum(margin > 0 for margin in margins) / 2
    assert found["log_loss"] == pytest.approx(sum(math.log(1 + math.exp(-margin)) for margin in margins) / 2, abs=1e-5)
    assert found["chosen"]["mean"] == pytest.approx((short + other) / 2, abs=1e-5)
    assert found["rejected"]["mean"] == pytest.approx((long + short) / 2, abs=1e-5)
    assert (found["pairs"], found["prompts"]) == (2, 2)
    assert found["accuracy_low"] < found["accuracy"] + 1e-9
    assert found["longer_wins_accuracy"] == 0.5
    assert found["shorter_wins_accuracy"] == 0.5


def test_an_answer_in_many_pairs_counts_once_in_the_statistics() -> None:
    model = RewardModel(tiny_adapter().eval(), random_head(64, seed=0), PAD)
    third = Exchange([3, 4], [11, 1])
    found = judge(model, [Comparison([SHORT, LONG, third], [(0, 1), (0, 2)])], 4)
    assert found["chosen"]["std"] == 0.0
    assert found["pairs"] == 2
    assert found["longer_wins_accuracy"] == 0.25  # one pair the wrong way round, one tie
