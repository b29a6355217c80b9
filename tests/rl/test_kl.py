from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ftcli.rl.kl import AdaptiveKL, FixedKL, k1, k2, k3, kl_controller

Estimator = Callable[[Tensor, Tensor], Tensor]
ESTIMATORS = [("k1", k1), ("k2", k2), ("k3", k3)]


@pytest.mark.parametrize(("name", "estimator"), ESTIMATORS)
def test_estimators_per_token_match_the_reference(vectors: Any, name: str, estimator: Estimator) -> None:
    case = vectors["kl"]
    found = estimator(case["logprobs"], case["ref_logprobs"]) * case["mask"]
    torch.testing.assert_close(found, case[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "estimator"), ESTIMATORS)
def test_expectation_and_spread_under_the_policy_match_the_categorical(
    vectors: Any, name: str, estimator: Estimator
) -> None:
    case = vectors["kl_categorical"]
    p, q = case["p"], case["q"]
    values = estimator(p.log(), q.log())
    mean = (p * values).sum()
    assert float(mean) == pytest.approx(case[f"E_{name}"], abs=1e-9)
    assert float(((p * values**2).sum() - mean**2).sqrt()) == pytest.approx(case[f"std_{name}"], abs=1e-9)


@pytest.mark.parametrize("where", ["far", "near"])
@pytest.mark.parametrize(("name", "estimator"), ESTIMATORS)
def test_gradient_of_each_estimator_in_the_reward(vectors: Any, name: str, estimator: Estimator, where: str) -> None:
    case = vectors[f"kl_in_reward_gradient_{where}"]
    logits = case["logits"].clone().requires_grad_()
    logprobs = torch.log_softmax(logits, -1)
    reward = estimator(logprobs, case["q"].log()).detach()
    (gradient,) = torch.autograd.grad((logprobs.exp().detach() * logprobs * reward).sum(), logits)
    torch.testing.assert_close(gradient, case[f"in_reward_{name}"], rtol=0, atol=1e-9)
    if name == "k1":
        torch.testing.assert_close(gradient, case["true_grad"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "estimator"), ESTIMATORS)
def test_gradient_of_each_estimator_as_a_loss(vectors: Any, name: str, estimator: Estimator) -> None:
    case = vectors["kl_as_loss_gradient"]
    logits = case["logits"].clone().requires_grad_()
    logprobs = torch.log_softmax(logits, -1)
    q = vectors["kl_categorical"]["q"]
    weights = torch.softmax(case["logits"], -1)
    (gradient,) = torch.autograd.grad((weights * estimator(logprobs, q.log())).sum(), logits)
    torch.testing.assert_close(gradient, case[f"E_grad_{name}"], rtol=0, atol=1e-9)


def test_adaptive_coefficient_follows_the_reference_sequence(vectors: Any) -> None:
    case = vectors["adaptive_kl"]
    controller = AdaptiveKL(case["init"], case["target"], case["horizon"])
    found = []
    for kl in case["current"].tolist():
        controller.update(kl, case["n_steps"])
        found.append(controller.value)
    assert found == pytest.approx(case["value_after"].tolist(), abs=1e-9)


def test_without_a_target_the_coefficient_stays() -> None:
    controller = kl_controller(0.05, None, 10000)
    assert isinstance(controller, FixedKL)
    controller.update(1e6, 512)
    assert controller.value == 0.05


def test_with_a_target_the_coefficient_rises_when_the_kl_is_above_it() -> None:
    controller = kl_controller(0.05, 6.0, 10000)
    controller.update(12.0, 512)
    assert controller.value == pytest.approx(0.05 * 1.01024)
