"""What the settings of PPO do to gradients, advantages and rollouts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributions import Categorical

from ftcli.models.heads import ScalarHead
from ftcli.rl.engines import HfEngine
from ftcli.rl.ppo import PpoSettings, PpoTrainer
from ftcli.rl.roles import FullRoles, full_roles, lora_roles, recompute_activations
from ftcli.rl.rollout import Experience, Sampling
from ftcli.rl.sequences import Exchange, Prompt, collate, micro_batches
from tests.rl.conftest import EOS, PAD, random_exchanges, scored, tiny_adapter, tiny_llama

PROMPTS = [Prompt(one.prompt) for one in random_exchanges(20, seed=3)]


def even(exchanges: Sequence[Exchange]) -> list[float]:
    return [sum(token % 2 == 0 for token in one.response) / len(one.response) for one in exchanges]


def other_policy(dtype: torch.dtype = torch.float64, value: bool = True) -> FullRoles:
    """A policy that is not its reference, with a critic that says something."""
    policy, reference = tiny_llama(0, dtype), tiny_llama(1, dtype)
    head = ScalarHead(64).to(dtype)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
    return FullRoles(policy, reference, copy.deepcopy(policy) if value else None, head)


def trainer(roles: Any, **settings: Any) -> PpoTrainer:
    given = {"total_rollouts": 4, "rollout_batch_size": 8, "num_mini_batches": 1, "micro_batch_size": 8} | settings
    return PpoTrainer(
        roles, scored(even), PROMPTS, PpoSettings(**given), Sampling(frozenset({EOS}), PAD, response_length=9)
    )


def gradient(one: PpoTrainer, exchanges: list[Exchange], experience: Experience | None = None) -> torch.Tensor:
    """Of the policy on one minibatch of everything."""
    experience = experience or one.experience(exchanges, scored(even)(exchanges))
    one.optimizer.zero_grad(set_to_none=True)
    one.accumulate(experience, list(range(len(exchanges))))
    return torch.cat([weight.grad.flatten() for weight in one.roles.policy_parameters() if weight.grad is not None])


def logits_of(model: Any, exchange: Exchange) -> torch.Tensor:
    """[R, V] before each response token, by the model's own forward on that row alone."""
    ids = torch.tensor([[*exchange.prompt, *exchange.response]])
    return model(input_ids=ids).logits[0, len(exchange.prompt) - 1 : -1]


def by_hand(roles: FullRoles, exchanges: list[Exchange], loss_of: Any) -> torch.Tensor:
    """The gradient of the mean over all response tokens of ``loss_of(own logits, reference logits, targets)`` [R]."""
    model = copy.deepcopy(roles.policy_model)
    parts = []
    for one in exchanges:
        with torch.no_grad():
            reference = logits_of(roles.reference_model, one)
        parts.append(loss_of(logits_of(model, one), reference, torch.tensor(one.response)))
    torch.cat(parts).mean().backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to the rounding of the model's norms, which compute in float32 whatever the model does."""
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_the_entropy_bonus_adds_the_gradient_of_the_mean_entropy() -> None:
    roles, exchanges = other_policy(), random_exchanges(8)
    without = gradient(trainer(roles), exchanges)
    with_bonus = gradient(trainer(roles, entropy_coef=0.3), exchanges)
    expected = by_hand(roles, exchanges, lambda own, _, __: Categorical(logits=own).entropy())
    assert_same(with_bonus - without, -0.3 * expected)


def test_the_kl_as_a_loss_adds_the_gradient_of_half_the_squared_log_ratio_and_leaves_the_reward_alone() -> None:
    roles, exchanges = other_policy(), random_exchanges(8)
    plain = trainer(roles, kl_coef=0.0)
    experience = plain.experience(exchanges, scored(even)(exchanges))
    as_loss = trainer(roles, kl_coef=0.3, kl_penalty_in="loss")
    same = as_loss.experience(exchanges, scored(even)(exchanges))
    assert torch.equal(same.returns, experience.returns)

    def half_square(own: torch.Tensor, reference: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        ratio = Categorical(logits=own).log_prob(targets) - Categorical(logits=reference).log_prob(targets)
        return ratio**2 / 2

    found = gradient(as_loss, exchanges, same) - gradient(plain, exchanges, experience)
    assert_same(found, 0.3 * by_hand(roles, exchanges, half_square))
    metrics = as_loss.step()
    assert metrics["objective/non_score_reward"] == 0.0
    assert metrics["objective/kl"] != 0.0


def test_the_critic_can_have_a_lambda_of_its_own() -> None:
    exchanges = random_exchanges(8)
    found = trainer(other_policy(), lam=0.5, critic_lam=1.0).experience(exchanges, scored(even)(exchanges))
    policys = trainer(other_policy(), lam=0.5).experience(exchanges, scored(even)(exchanges))
    critics = trainer(other_policy(), lam=1.0).experience(exchanges, scored(even)(exchanges))
    assert torch.equal(found.advantages, policys.advantages)
    assert torch.equal(found.returns, critics.returns)
    assert not torch.equal(policys.returns, critics.returns)


def test_advantages_are_left_as_they_are_where_whitening_is_off() -> None:
    exchanges = random_exchanges(8)
    one = trainer(other_policy(), whiten_advantages=False)
    found = one.experience(exchanges, scored(even)(exchanges))
    torch.testing.assert_close(found.advantages, (found.returns - found.measured.values) * found.measured.mask)


def test_whitened_rewards_have_variance_one_over_all_response_tokens() -> None:
    exchanges = random_exchanges(8)
    # With both discounts 0 the return of a token is its reward.
    one = trainer(other_policy(), whiten_rewards=True, gamma=1e-9, lam=0.0)
    found = one.experience(exchanges, scored(even)(exchanges))
    rewards = found.returns[found.measured.mask]
    assert float(rewards.var()) == pytest.approx(1.0, abs=1e-6)


def test_each_prompt_is_answered_as_often_as_asked() -> None:
    one = trainer(other_policy(torch.float32), samples_per_prompt=4)
    prompts = [exchange.prompt for exchange in one.sample()]
    assert prompts[:4] == [prompts[0]] * 4
    assert prompts[4:] == [prompts[4]] * 4
    assert prompts[0] != prompts[4]
    responses = {tuple(exchange.response) for exchange in one.sample()[:4]}
    assert len(responses) > 1


def test_in_the_critics_head_start_the_policy_stays_and_the_critic_learns() -> None:
    roles = other_policy(torch.float32)
    one = trainer(roles, critic_warmup_rollouts=2, learning_rate=1e-3, critic_learning_rate=1e-3)
    policy = [weight.clone() for weight in roles.policy_parameters()]
    critic = [weight.clone() for weight in roles.value_parameters()]
    for _ in range(2):
        metrics = one.step()
        assert metrics["policy/approxkl_avg"] == 0.0
    assert all(torch.equal(weight, old) for weight, old in zip(roles.policy_parameters(), policy, strict=True))
    assert not any(torch.equal(weight, old) for weight, old in zip(roles.value_parameters(), critic, strict=True))
    one.step()
    assert not any(torch.equal(weight, old) for weight, old in zip(roles.policy_parameters(), policy, strict=True))


def test_weights_for_another_sampler_weigh_the_policys_loss() -> None:
    roles, exchanges = other_policy(), random_exchanges(8)
    one = trainer(roles)
    experience = one.experience(exchanges, scored(even)(exchanges))
    assert experience.importance is None
    halved = replace(experience, importance=torch.full_like(experience.advantages, 0.5))
    torch.testing.assert_close(gradient(one, exchanges, halved), 0.5 * gradient(one, exchanges, experience))


def test_more_padding_and_another_order_change_no_gradient() -> None:
    exchanges = random_exchanges(16)
    longer = Exchange([2] * 12, [5] * 20, ended=False)
    one = trainer(other_policy(), rollout_batch_size=16, micro_batch_size=32)
    found = gradient(one, exchanges)
    # The same 16 rows in one micro-batch with a longer one that has no advantage: all of them get padding.
    experience = one.experience(exchanges, scored(even)(exchanges))
    wide = trainer(other_policy(), rollout_batch_size=17, micro_batch_size=32, missing_eos_penalty=0.0)
    padded = wide.experience([*exchanges, longer], scored(even)([*exchanges, longer]))
    columns = experience.advantages.shape[1]
    for name in ("advantages", "returns"):
        whole = torch.zeros_like(padded.advantages)
        whole[:16, :columns] = getattr(experience, name)
        padded = replace(padded, **{name: whole})
    tokens = int(experience.measured.mask.sum())
    assert_same(gradient(wide, [*exchanges, longer], padded) * (tokens + 20) / tokens, found)
    assert_same(gradient(one, [*reversed(exchanges)]), found)


def test_what_stands_in_the_padding_reaches_no_loss_and_no_metric() -> None:
    exchanges = random_exchanges(8)
    one = trainer(other_policy())
    experience = one.experience(exchanges, scored(even)(exchanges))
    clean = gradient(one, exchanges, experience)
    outside = ~experience.measured.mask
    dirty = replace(
        experience,
        advantages=experience.advantages.masked_fill(outside, float("nan")),
        returns=experience.returns.masked_fill(outside, 1e9),
        measured=replace(
            experience.measured,
            logprobs=experience.measured.logprobs.masked_fill(outside, -1e9),
            values=experience.measured.values.masked_fill(outside, float("nan")),
        ),
    )
    assert torch.equal(gradient(one, exchanges, dirty), clean)


@pytest.mark.parametrize(("sampled_at", "error"), [(1.0, 0.0), (0.5, 0.5)])
def test_the_mean_ratio_is_one_only_where_sampling_and_scoring_agree_on_the_temperature(
    sampled_at: float, error: float
) -> None:
    """Importance sampling: the mean of p / q over samples from q is 1; with q = softmax(logits / 0.5) it is not."""
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # a random model is nearly uniform
    roles = FullRoles(model, copy.deepcopy(model), None, ScalarHead(64))
    one = trainer(roles, rollout_batch_size=512, micro_batch_size=512)
    engine, prompts = HfEngine(), [PROMPTS[place % 20].ids for place in range(512)]
    engine.sync(model, 0)
    answers = engine.generate(prompts, [str(n) for n in range(512)], replace(one.sampling, temperature=sampled_at), 0)
    exchanges = [Exchange(p, answer.ids[:1]) for p, answer in zip(prompts, answers, strict=True)]
    batch = collate(exchanges, PAD)
    scoring = roles.measure_policy(batch, 1.0).logprobs[:, 0]
    entropy = roles.measure_policy(batch, 1.0).entropy[:, 0]
    surprise = float((-scoring - entropy).mean())  # 0 in the mean where the sampler is the policy
    assert abs(surprise) > error if error else abs(surprise) < 0.15


def test_computing_activations_twice_changes_no_bit_of_the_gradient() -> None:
    exchanges = random_exchanges(8)
    found = []
    for again in (False, True):
        roles = lora_roles(tiny_adapter(), is_fresh=False, value_init="zero")
        if again:
            recompute_activations(roles.model)
        one = trainer(roles, micro_batch_size=3)
        assert (
            one.accumulate(one.experience(exchanges, scored(even)(exchanges)), list(range(8))).largest_log_ratio == 0.0
        )
        found.append([weight.grad for weight in [*roles.policy_parameters(), *roles.value_parameters()]])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


@pytest.mark.parametrize("value_init", ["zero", "head_only"])
def test_all_weights_can_be_trained_in_bfloat16_from_a_kl_of_zero(value_init: Any) -> None:
    roles = full_roles(tiny_llama(), value_init=value_init, autocast=torch.bfloat16)
    one = trainer(roles, learning_rate=1e-3)
    metrics = one.step()
    assert metrics["objective/kl"] == 0.0
    assert metrics["check/first_mb_max_abs_logratio"] == 0.0
    assert metrics["val/mean"] == 0.0
    assert one.step()["objective/kl"] != 0.0
    assert {weight.dtype for weight in roles.policy_parameters()} == {torch.float32}


def test_a_micro_batch_holds_so_many_tokens_with_its_padding() -> None:
    lengths = [3, 9, 4, 4, 30, 5]
    assert micro_batches(lengths, range(6), 8, 16) == [[0, 2, 3], [5], [1], [4]]
    assert micro_batches(lengths, range(6), 2) == [[0, 2], [3, 5], [1, 4]]
