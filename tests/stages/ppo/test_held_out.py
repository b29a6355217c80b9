from __future__ import annotations

import pytest
from scipy.stats import ttest_rel

from ftcli.stages.ppo.held_out import Answer, Exam, compare


def exam(*scores: float) -> Exam:
    return Exam([Answer([3] * (index + 1), index % 2 == 0, score, 0.5) for index, score in enumerate(scores)])


def test_the_comparison_pairs_answers_to_the_same_prompt() -> None:
    before, after = exam(0.0, 1.0, 5.0), exam(1.0, 1.5, 6.5)
    found = compare(before, after)
    assert found["eval/score_before"] == 2.0
    assert found["eval/score_after"] == 3.0
    assert found["eval/score_change"] == 1.0
    assert found["eval/score_change_z"] == pytest.approx(ttest_rel(after.scores, before.scores).statistic)
    assert found["eval/kl"] == 0.5
    assert found["eval/length_after"] == 2.0
    assert found["eval/eos_rate_after"] == pytest.approx(2 / 3)
    assert found["eval/prompts"] == 3


def test_an_exam_survives_json() -> None:
    before = exam(0.25, -1.0)
    assert Exam.from_json(before.to_json()) == before
