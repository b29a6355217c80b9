from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from ftcli.core.errors import Diverged
from ftcli.models.heads import ScalarHead
from ftcli.rl.ppo import PpoSettings, PpoTrainer
from ftcli.rl.rewards import Scores
from ftcli.rl.roles import FullRoles, Roles, lora_roles
from ftcli.rl.rollout import Sampling
from ftcli.rl.sequences import Exchange, Prompt
from ftcli.rl.statistics import Metrics, correlation, distinct_bigrams
from tests.rl.conftest import EOS, PAD, full_roles, random_exchanges, scored, tiny_adapter, tiny_llama

PROMPTS = [Prompt(one.prompt) for one in random_exchanges(20, seed=3)]

Rule = Callable[[Sequence[Exchange]], list[float]]


def even(exchanges: Sequence[Exchange]) -> list[float]:
    return [sum(token % 2 == 0 for token in one.response) / len(one.response) for one in exchanges]


def trainer(roles: Roles | None = None, score: Rule = even, **settings: Any) -> PpoTrainer:
    given = {"total_rollouts": 4, "rollout_batch_size": 8, "micro_batch_size": 3, "learning_rate": 1e-3} | settings
    return PpoTrainer(
        roles or full_roles(),
        scored(score),
        PROMPTS,
        PpoSettings(**given),
        Sampling(frozenset({EOS}), PAD, response_length=9),
    )


def without_clocks(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if name != "eps" and not name.startswith("perf/")}


def weights_of(found: PpoTrainer) -> list[torch.Tensor]:
    groups = found.optimizer.param_groups
    return [weight.detach().clone() for group in groups for weight in group["params"]]


def lora(value_init: Any = "zero", dtype: torch.dtype = torch.float32) -> Roles:
    return lora_roles(tiny_adapter(dtype), is_fresh=False, value_init=value_init)


@pytest.mark.parametrize("make", [full_roles, lora, lambda: lora("head_only"), lambda: lora(dtype=torch.bfloat16)])
def test_the_first_rollout_starts_at_kl_zero_and_every_first_ratio_is_one(make: Any) -> None:
    found = trainer(make())
    for rollout in range(3):
        metrics = found.step()
        assert metrics["check/first_mb_max_abs_logratio"] == 0.0
        assert metrics["check/first_mb_approxkl"] == 0.0
        if rollout == 0:
            assert metrics["objective/kl"] == 0.0
            assert metrics["objective/kl_k3"] == 0.0
    assert metrics["objective/kl"] != 0.0


def test_micro_batches_change_no_gradient() -> None:
    found: dict[int, torch.Tensor] = {}
    for size in (8, 4, 3, 1):
        one = trainer(full_roles(dtype=torch.float64), micro_batch_size=size, num_mini_batches=1, rollout_batch_size=16)
        with torch.no_grad():
            one.roles.head_parameters()[0].normal_(generator=torch.Generator().manual_seed(0))
        exchanges = random_exchanges(16)
        experience = one.experience(exchanges, scored(even)(exchanges))
        one.accumulate(experience, list(range(16)))
        parameters = [*one.roles.policy_parameters(), *one.roles.value_parameters(), *one.roles.head_parameters()]
        found[size] = torch.cat([weight.grad.flatten() for weight in parameters if weight.grad is not None])
    for size in (4, 3, 1):
        assert float((found[size] - found[8]).norm() / found[8].norm()) < 1e-12


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (2, 2), (3, 4)])
def test_a_rollout_makes_epochs_times_minibatches_updates_and_clips_both_parts_in_each(
    epochs: int, minibatches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped: list[int] = []
    original = torch.nn.utils.clip_grad_norm_

    def counting(parameters: Any, limit: float) -> Any:
        clipped.append(1)
        return original(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", counting)
    found = trainer(num_ppo_epochs=epochs, num_mini_batches=minibatches, early_stop_approxkl=None)
    assert found.step()["policy/updates"] == epochs * minibatches
    steps = {int(state["step"]) for state in found.optimizer.state.values()}
    assert steps == {epochs * minibatches}
    assert len(clipped) == 2 * epochs * minibatches


def test_without_a_learning_rate_nothing_moves() -> None:
    found = trainer(learning_rate=0.0, critic_learning_rate=0.0)
    before = weights_of(found)
    kl = [found.step()["objective/kl"] for _ in range(2)]
    assert kl == [0.0, 0.0]
    assert all(torch.equal(one, other) for one, other in zip(before, weights_of(found), strict=True))


def test_without_a_kl_coefficient_the_reward_is_the_score() -> None:
    found = trainer(kl_coef=0.0, missing_eos_penalty=0.0)
    found.step()
    metrics = found.step()
    assert metrics["objective/non_score_reward"] == 0.0
    assert metrics["objective/rlhf_reward"] == pytest.approx(metrics["objective/scores"])


def test_constant_scores_stay_finite_and_explain_no_variance() -> None:
    found = trainer(score=lambda found: [1.0] * len(found), missing_eos_penalty=0.0, kl_coef=0.0, lam=1.0)
    metrics = found.step()
    assert metrics["val/explained_variance"] is None
    assert metrics["rollout/score_length_corr"] is None
    assert all(torch.isfinite(weight).all() for weight in weights_of(found))


def test_single_token_responses_work() -> None:
    settings = PpoSettings(total_rollouts=1, rollout_batch_size=8)
    found = PpoTrainer(
        full_roles(), scored(even), PROMPTS, settings, Sampling(frozenset({EOS}), PAD, response_length=1)
    )
    metrics = found.step()
    assert metrics["rollout/length_mean"] == 1.0
    assert metrics["rollout/distinct2"] is None
    assert all(torch.isfinite(weight).all() for weight in weights_of(found))


def test_the_missing_end_is_penalised_in_the_reward_and_not_in_the_score() -> None:
    metrics = trainer(kl_coef=0.0, missing_eos_penalty=2.0).step()
    missing = 1.0 - float(metrics["rollout/eos_rate"] or 0.0)
    assert 0 < missing < 1
    assert metrics["objective/rlhf_reward"] == pytest.approx(float(metrics["objective/scores"] or 0) - 2.0 * missing)


def test_a_large_step_stops_the_rest_of_the_rollout() -> None:
    found = trainer(learning_rate=0.05, early_stop_approxkl=0.01, num_ppo_epochs=4)
    metrics = found.step()
    assert metrics["policy/stopped_early"] == 1
    assert 1 <= int(metrics["policy/updates"] or 0) < 8
    assert all(weight.grad is None for weight in found.roles.policy_parameters())


def test_the_speed_of_training_counts_the_tokens_that_were_learnt_from() -> None:
    found = trainer(learning_rate=0.05, early_stop_approxkl=0.01, num_ppo_epochs=4)
    order = [chosen for epoch in range(4) for chosen in found.minibatches(epoch)]
    metrics = found.step()
    assert found.last is not None
    lengths = [len(one.response) for one in found.last.exchanges]
    looked_at = order[: int(metrics["policy/updates"] or 0) + 1]  # the last was only looked at
    assert len(looked_at) < len(order)
    tokens = float(metrics["perf/train_tok_s"] or 0) * float(metrics["perf/time_train"] or 0)
    assert tokens == pytest.approx(sum(lengths[index] for chosen in looked_at for index in chosen))


def test_adaptive_kl_is_part_of_the_state() -> None:
    found = trainer(kl_target=3.0, kl_horizon=100)
    found.step()
    assert found.kl.value == pytest.approx(0.05 * (1 - 0.2 * 8 / 100))
    other = trainer(kl_target=3.0, kl_horizon=100)
    other.load_state_dict(found.state_dict())
    assert other.kl.value == found.kl.value


@pytest.mark.parametrize("make", [full_roles, lora])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(make: Any) -> None:
    whole, first, second = trainer(make()), trainer(make()), trainer(make())
    expected = [without_clocks(whole.step()) for _ in range(4)]
    found = [without_clocks(first.step()) for _ in range(2)]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    while not second.is_done:
        found.append(without_clocks(second.step()))
    assert found == expected
    assert all(torch.equal(one, other) for one, other in zip(weights_of(whole), weights_of(second), strict=True))


def test_frozen_parts_keep_every_bit() -> None:
    roles = lora_roles(tiny_adapter(), is_fresh=False, value_init="zero")
    trained = {id(weight) for weight in [*roles.policy_parameters(), *roles.value_parameters()]}
    frozen = {name: weight.clone() for name, weight in roles.model.named_parameters() if id(weight) not in trained}
    found = trainer(roles)
    before = weights_of(found)
    for _ in range(2):
        found.step()
    assert all(torch.equal(weight, frozen[name]) for name, weight in roles.model.named_parameters() if name in frozen)
    assert not any(torch.equal(one, other) for one, other in zip(before, weights_of(found), strict=True))


def test_each_pass_over_the_prompts_is_a_new_permutation() -> None:
    seen: list[list[int]] = []

    def score(exchanges: Sequence[Exchange]) -> list[float]:
        seen.extend(one.prompt for one in exchanges)
        return even(exchanges)

    found = trainer(score=score, total_rollouts=5)
    while not found.is_done:
        found.step()
    assert sorted(seen[:20]) == sorted(one.ids for one in PROMPTS)
    assert sorted(seen[20:40]) == sorted(seen[:20])
    assert seen[:20] != seen[20:40]


def test_a_score_that_is_not_finite_stops_the_run() -> None:
    with pytest.raises(Diverged, match="score is not finite"):
        trainer(score=lambda exchanges: [float("nan")] * len(exchanges)).step()


def test_weights_that_blow_up_stop_the_run() -> None:
    roles = FullRoles(tiny_llama(), tiny_llama(), None, ScalarHead(64))
    with torch.no_grad():
        roles.value_head.bias.fill_(float("inf"))
    with pytest.raises(Diverged, match="rollout 1: loss"):
        trainer(roles).step()


def test_a_response_that_no_source_scored_is_in_no_statistic_of_scores() -> None:
    def every_other(exchanges: Sequence[Exchange]) -> Scores:
        said = [place + float(len(one.response)) if place % 2 else None for place, one in enumerate(exchanges)]
        return Scores([value or 0.0 for value in said], {"rule": said})

    found = trainer(rollout_batch_size=32, micro_batch_size=16, total_rollouts=1)
    found.score = every_other
    metrics = found.step()
    assert found.last is not None
    lengths = [len(one.response) for one in found.last.exchanges][1::2]
    scores = [place + float(length) for place, length in zip(range(1, 32, 2), lengths, strict=True)]
    assert metrics["objective/scores"] == pytest.approx(fmean(scores))
    assert metrics["objective/scores_std"] == pytest.approx(stdev(scores))
    assert metrics["rollout/score_length_corr"] == pytest.approx(pearsonr(scores, lengths).statistic)
    for percent in (1, 50, 99):
        assert metrics[f"reward/p{percent:02d}"] == pytest.approx(np.percentile(scores, percent))
    assert metrics["reward/unscored"] == 16


def test_where_nothing_is_scored_there_are_no_statistics_of_scores() -> None:
    def silent(exchanges: Sequence[Exchange]) -> Scores:
        return Scores([0.0] * len(exchanges), {"rule": [None] * len(exchanges)})

    found = trainer(kl_coef=0.0, missing_eos_penalty=0.0)
    found.score = silent
    metrics = found.step()
    names = ("objective/scores", "objective/scores_std", "rollout/score_length_corr", "reward/p50", "reward/rule/mean")
    assert [metrics[name] for name in names] == [None] * 5
    assert metrics["reward/unscored"] == 8
    assert metrics["objective/rlhf_reward"] == 0.0


def test_distinct_bigrams_by_hand() -> None:
    assert distinct_bigrams([Exchange([2], [3, 4, 3, 4]), Exchange([2], [3, 4])]) == 0.5


def test_correlation_agrees_with_scipy() -> None:
    first, second = torch.tensor([1.0, 3.0, 2.0, 5.0]), torch.tensor([2.0, 2.5, 1.0, 9.0])
    assert correlation(first, second) == pytest.approx(pearsonr(first.numpy(), second.numpy()).statistic)
