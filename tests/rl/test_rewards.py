from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ftcli.rl.kl import k1, k3
from ftcli.rl.rewards import ScoreScale, score_summary, shape_scores, token_rewards


@pytest.mark.parametrize(("name", "estimator"), [("rewards_k1", k1), ("rewards_k3", k3)])
def test_token_rewards_match_the_reference(vectors: Any, name: str, estimator: Any) -> None:
    kl, case = vectors["kl"], vectors["token_rewards"]
    per_token = estimator(kl["logprobs"], kl["ref_logprobs"])
    found = token_rewards(per_token, kl["mask"], case["score"], case["kl_coef"])
    torch.testing.assert_close(found, case[name], rtol=0, atol=1e-9)


def test_reward_of_a_response_is_its_score_less_the_kl(vectors: Any) -> None:
    kl, case = vectors["kl"], vectors["token_rewards"]
    found = token_rewards(k1(kl["logprobs"], kl["ref_logprobs"]), kl["mask"], case["score"], case["kl_coef"])
    torch.testing.assert_close(found.sum(1), case["rlhf_reward"], rtol=0, atol=1e-9)


def test_score_stands_on_the_last_token_and_garbage_beyond_it_does_not_count() -> None:
    kl = torch.tensor([[0.0, float("nan"), 3.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, False, False], [True, True, True]])
    found = token_rewards(kl, mask, torch.tensor([2.0, 5.0]), 0.1)
    assert found.tolist() == [[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]]


def test_a_response_that_did_not_end_is_penalised_once_and_after_the_clip() -> None:
    scores = torch.tensor([30.0, 30.0, -4.0])
    ended = torch.tensor([True, False, True])
    found = shape_scores(scores, ended, ScoreScale(mean=2.0, std=2.0), clip=10.0, missing_eos_penalty=1.5)
    assert found.tolist() == [10.0, 8.5, -3.0]


def test_without_scale_clip_and_penalty_scores_stay() -> None:
    scores = torch.tensor([30.0, -4.0])
    assert torch.equal(shape_scores(scores, torch.tensor([True, False]), ScoreScale(), None, 0.0), scores)


def test_score_summary_agrees_with_numpy() -> None:
    scores = np.random.default_rng(0).normal(size=57).tolist()
    found = score_summary(scores)
    assert found["mean"] == pytest.approx(np.mean(scores))
    assert found["std"] == pytest.approx(np.std(scores, ddof=1))
    for percent in (1, 5, 25, 50, 75, 95, 99):
        assert found[f"p{percent:02d}"] == pytest.approx(np.percentile(scores, percent))


def test_summary_of_one_score_has_no_spread() -> None:
    assert score_summary([2.5])["std"] == 0.0
