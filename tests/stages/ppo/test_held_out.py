from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

import pytest
import torch
from scipy.stats import ttest_rel

from ftcli.core.errors import StageFailed
from ftcli.rl.engines import HfEngine
from ftcli.rl.ranks import single
from ftcli.rl.rewards import Scores
from ftcli.rl.rollout import Sampling
from ftcli.rl.sequences import Exchange, Prompt
from ftcli.stages.ppo.held_out import Answer, Exam, Examiner, compare
from tests.rl.conftest import EOS, PAD, full_roles


def exam(*scores: float) -> Exam:
    return Exam(
        [Answer([3] * (index + 1), index % 2 == 0, score, 0.5, {"rule": score}) for index, score in enumerate(scores)]
    )


def judged(scores: Sequence[float], rule: Sequence[float | None], half: Sequence[float | None]) -> Exam:
    """Answers with a source ``rule`` that is not optimised, and two sources ``half`` and ``rest`` that are."""
    return Exam(
        [
            Answer([3], True, score, 0.5, {"half": part, "rest": 0.25}, {"rule": value})
            for score, value, part in zip(scores, rule, half, strict=True)
        ]
    )


def test_the_comparison_pairs_answers_to_the_same_prompt() -> None:
    before, after = exam(0.0, 1.0, 5.0, 2.0), exam(1.0, 1.5, 6.5, 1.0)
    found = compare(before, after)
    expected = ttest_rel(after.known, before.known)
    assert found["eval/score_before"] == 2.0
    assert found["eval/score_after"] == 2.5
    assert found["eval/score_change"] == 0.5
    assert found["eval/score_change_z"] == pytest.approx(expected.statistic)
    assert found["eval/score_change_se"] == pytest.approx(0.5 / expected.statistic)
    assert found["eval/score_change_low"] < 0.5 < found["eval/score_change_high"]
    assert found["eval/score_change_low"] >= -1.0, "no resample of the changes has a smaller mean than the smallest"
    assert found["eval/kl"] == 0.5
    assert found["eval/length_after"] == 2.5
    assert found["eval/eos_rate_after"] == 0.5
    assert found["eval/prompts"] == found["eval/score_n"] == 4
    assert not [name for name in found if name.startswith(("eval_source/", "eval_reward/"))]


def test_equal_exams_have_no_change_and_no_z() -> None:
    found = compare(exam(0.1, 0.7, 0.3), exam(0.2, 0.8, 0.4))
    assert found["eval/score_change"] == pytest.approx(0.1)
    assert found["eval/score_change_z"] is None, "all changes are alike but for rounding"
    assert compare(exam(1.0, 2.0), exam(1.0, 2.0))["eval/score_change_z"] is None


def test_a_reward_that_is_not_optimised_stands_beside_the_score_with_the_gap_between_them() -> None:
    scores, later = [0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 6.0]
    rule, later_rule = [1.0, None, 0.0, 2.0], [1.0, 1.0, None, 4.0]
    found = compare(judged(scores, rule, [1.0] * 4), judged(later, later_rule, [None] * 4))
    assert (found["eval_reward/rule_before"], found["eval_reward/rule_after"]) == (1.5, 2.5), "of rows 0 and 3"
    assert found["eval_reward/rule_n"] == 2
    assert found["eval_reward/rule_change_z"] == pytest.approx(ttest_rel([1.0, 4.0], [1.0, 2.0]).statistic)
    assert found["eval_reward/rule_gap"] == pytest.approx(
        (fmean(later) - fmean(scores)) / stdev(scores) - 1.0 / stdev([1.0, 2.0])
    )
    assert found["eval_source/rest_change"] == 0.0
    assert found["eval_source/half_n"] == 0
    assert found["eval_source/half_change"] is found["eval_source/half_change_low"] is None


def test_where_a_reward_does_not_vary_there_is_no_gap() -> None:
    found = compare(judged([0.0, 1.0], [1.0, 1.0], [0.0] * 2), judged([1.0, 1.0], [2.0, 3.0], [0.0] * 2))
    assert found["eval_reward/rule_gap"] is None
    assert found["eval_reward/rule_change"] == 1.5


def test_an_answer_that_nothing_scored_stands_for_no_score() -> None:
    def told(*scores: float | None) -> Exam:
        return Exam([Answer([3], True, score or 0.0, 0.5, {"rule": score}, {"other": 1.0}) for score in scores])

    before, after = told(1.0, None, 2.0, None, 6.0), told(2.0, 5.0, None, None, 9.0)
    assert (before.judged, before.known) == ([1.0, None, 2.0, None, 6.0], [1.0, 2.0, 6.0])
    assert (before.summary()["eval/score"], after.summary()["eval/score"]) == (3.0, pytest.approx(16 / 3))
    found = compare(before, after)
    assert (found["eval/prompts"], found["eval/score_n"]) == (5, 2), "rows 0 and 4 have both scores"
    assert (found["eval/score_before"], found["eval/score_after"], found["eval/score_change"]) == (3.5, 5.5, 2.0)
    assert found["eval/score_change_z"] == pytest.approx(ttest_rel([2.0, 9.0], [1.0, 6.0]).statistic)
    nothing = compare(told(None, None), told(None, None))
    assert nothing["eval/score_n"] == 0
    assert nothing["eval/score_change"] is nothing["eval/score_before"] is nothing["eval/score_change_p"] is None
    assert told(None, None).summary()["eval/score"] is None


def test_an_exam_survives_json() -> None:
    before = judged([0.25, -1.0], [None, 2.0], [1.0, None])
    assert Exam.from_json(before.to_json()) == before


def test_a_source_that_skipped_every_answer_has_no_mean() -> None:
    assert judged([1.0, 2.0], [None, None], [1.0, 1.0]).summary()["eval_reward/rule"] is None


@pytest.fixture
def examiner() -> Examiner:
    def score(exchanges: Sequence[Exchange]) -> Scores:
        lengths = [float(len(one.response)) for one in exchanges]
        return Scores([2 * value for value in lengths], {"length": list(lengths)})

    def first_token(exchanges: Sequence[Exchange]) -> list[float | None]:
        return [float(one.response[0]) if one.response[0] != EOS else None for one in exchanges]

    prompts = [Prompt([3 + place, 5, 7]) for place in range(12)]
    sampling = Sampling(frozenset({EOS}), PAD, 6)
    roles = full_roles()
    device = torch.device("cpu")
    return Examiner(roles, HfEngine(), score, prompts, sampling, 0, 4, device, single(), {"first": first_token})


def test_equal_policies_give_equal_answers_and_a_moved_one_pays_kl(examiner: Examiner) -> None:
    before = examiner.sampled(0)
    assert [one.kl for one in before.answers] == [0.0] * 12
    assert all(one.score == 2 * len(one.response) == 2 * one.parts["length"] for one in before.answers)
    assert all(one.evals["first"] == one.response[0] for one in before.answers if one.response[0] != EOS)
    assert examiner.sampled(1) == before, "the policy has not moved"
    fewer = replace(examiner, prompts=examiner.prompts[:3])
    assert fewer.sampled(1).answers == before.answers[:3], "the draws do not depend on how many are asked"
    with torch.no_grad():
        for weight in examiner.roles.policy_parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    moved = examiner.sampled(2)
    assert moved != before
    assert fmean(one.kl for one in moved.answers) > 0.0
    with pytest.raises(StageFailed, match="the reference is not the starting policy"):
        examiner.sampled(0)


def test_greedy_answers_are_the_most_likely_tokens_whatever_the_seed(examiner: Examiner) -> None:
    greedy = examiner.greedy(0, 3)
    assert len(greedy.answers) == 3
    assert replace(examiner, seed=1).greedy(0, 3) == greedy
    assert replace(examiner, seed=1).sampled(0) != examiner.sampled(0)
    model = examiner.roles.sampler()
    for prompt, answer in zip(examiner.prompts, greedy.answers, strict=False):
        logits = model(input_ids=torch.tensor([[*prompt.ids, *answer.response]])).logits[0]
        assert logits[len(prompt.ids) - 1 : -1].argmax(dim=1).tolist() == answer.response
    assert examiner.greedy(0, 0) == Exam([])
