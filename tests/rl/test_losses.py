from __future__ import annotations

from typing import Any

import pytest
import torch

from ftcli.rl.advantages import masked_mean
from ftcli.rl.kl import k2, k3
from ftcli.rl.losses import (
    centering_loss,
    explained_variance,
    importance_ratio,
    policy_loss,
    preference_loss,
    value_loss,
)
from ftcli.rl.preferences import davidson_loss


@pytest.mark.parametrize("name", ["sym", "clip_higher", "dual3"])
def test_policy_loss_and_its_gradient_match_the_reference(vectors: Any, name: str) -> None:
    case = vectors[f"policy_loss_{name}"]
    mask = case["mask"].bool()
    new = case["new"].clone().requires_grad_()
    found = policy_loss(new, case["old"], case["adv"], case["low"], case["high"], case["dual"])
    loss = found.loss[mask].sum() / mask.sum()
    loss.backward()
    torch.testing.assert_close(found.loss.detach() * mask, case["per_token"], rtol=0, atol=1e-9)
    assert float(loss) == pytest.approx(case["loss_token_mean"], abs=1e-9)
    torch.testing.assert_close(new.grad, case["grad_new"], rtol=0, atol=1e-9)
    assert float(masked_mean(found.clipped.double(), mask)) == pytest.approx(case["clipfrac"], abs=1e-9)


def test_ratio_and_approximate_kl_match_the_reference(vectors: Any) -> None:
    case = vectors["policy_loss_sym"]
    mask = case["mask"]
    torch.testing.assert_close(importance_ratio(case["new"], case["old"]) * mask, case["ratio"], rtol=0, atol=1e-9)
    assert float(masked_mean(k2(case["old"], case["new"]), mask)) == pytest.approx(case["approxkl_k2"], abs=1e-9)
    assert float(masked_mean(k3(case["old"], case["new"]), mask)) == pytest.approx(case["approxkl_k3"], abs=1e-9)


def test_ratio_stays_finite_for_log_probs_far_apart() -> None:
    found = importance_ratio(torch.tensor([0.0, -5000.0]), torch.tensor([-5000.0, 0.0]))
    assert found.isfinite().all()


def test_value_loss_and_its_gradient_match_the_reference(vectors: Any) -> None:
    case = vectors["value_loss"]
    mask = case["mask"].bool()
    values = case["vpred"].clone().requires_grad_()
    found = value_loss(values, case["old_values"], case["returns"], case["eps"])
    loss = found.loss[mask].sum() / mask.sum()
    loss.backward()
    torch.testing.assert_close(2 * found.loss.detach() * mask, case["per_token_max"], rtol=0, atol=1e-9)
    assert float(loss) == pytest.approx(case["loss"], abs=1e-9)
    torch.testing.assert_close(values.grad, case["grad"], rtol=0, atol=1e-9)
    assert float(masked_mean(found.clipped.double(), mask)) == pytest.approx(case["clipfrac"], abs=1e-9)


def test_value_loss_without_clip_is_half_the_squared_error(vectors: Any) -> None:
    case = vectors["value_loss"]
    mask = case["mask"].bool()
    found = value_loss(case["vpred"], case["old_values"], case["returns"], None)
    assert float(found.loss[mask].mean()) == pytest.approx(case["loss_unclipped"], abs=1e-9)
    assert not found.clipped.any()


def test_explained_variance_matches_the_reference(vectors: Any) -> None:
    case = vectors["value_loss"]
    found = explained_variance(case["vpred"], case["returns"], case["mask"])
    assert found == pytest.approx(case["explained_variance"], abs=1e-9)


def test_preference_loss_matches_the_reference(vectors: Any) -> None:
    case = vectors["bt"]
    chosen, rejected, margin = case["chosen"], case["rejected"], case["margin"]
    centre = centering_loss(chosen, rejected).mean()
    plain, with_margin = preference_loss(chosen, rejected).mean(), preference_loss(chosen, rejected, margin).mean()
    smoothed = preference_loss(chosen, rejected, label_smoothing=0.1).mean()
    assert float(plain) == pytest.approx(case["loss"], abs=1e-9)
    assert float(with_margin) == pytest.approx(case["loss_margin"], abs=1e-9)
    assert float(centre) == pytest.approx(case["center_term"], abs=1e-9)
    assert float(plain + 0.01 * centre) == pytest.approx(case["loss_center_001"], abs=1e-9)
    assert float(with_margin + 0.01 * centre) == pytest.approx(case["loss_margin_center_001"], abs=1e-9)
    assert float(smoothed) == pytest.approx(case["loss_label_smooth_01"], abs=1e-9)


def test_ties_match_the_reference(vectors: Any) -> None:
    case = vectors["ties"]
    difference = torch.tensor(case["d"], dtype=torch.float64)
    soft = preference_loss(difference, torch.zeros_like(difference), label_smoothing=0.5)
    assert float(soft) == pytest.approx(case["soft_bce_tie"], abs=1e-9)
    log_nu = torch.tensor(case["davidson_nu"], dtype=torch.float64).log()
    outcomes = ((difference, False), (-difference, False), (difference, True))
    found = [float(torch.exp(-davidson_loss(d, torch.tensor(is_tie), log_nu))) for d, is_tie in outcomes]
    assert found == pytest.approx([case["p_win"], case["p_loss"], case["p_tie"]], abs=1e-9)


def test_a_value_within_its_range_does_not_count_as_clipped() -> None:
    old = torch.linspace(-3, 3, 1000)
    values = old + 0.1 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert not value_loss(values, old, torch.zeros(1000), cliprange=0.2).clipped.any()
