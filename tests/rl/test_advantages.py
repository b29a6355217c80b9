from __future__ import annotations

from typing import Any

import pytest
import torch

from ftcli.rl.advantages import gae, masked_mean, masked_variance, whiten

CASES = ["gae_g1.0_l0.95", "gae_g1.0_l1.0", "gae_g0.99_l0.9", "gae_g1.0_l0.0", "gae_hole"]


@pytest.mark.parametrize("name", CASES)
def test_gae_matches_the_reference(vectors: Any, name: str) -> None:
    case = vectors[name]
    found = gae(case["rewards"], case["values"], case["mask"], case["gamma"], case["lam"])
    torch.testing.assert_close(found[0], case["advantages"], rtol=0, atol=1e-9)
    torch.testing.assert_close(found[1], case["returns"], rtol=0, atol=1e-9)


def test_score_on_the_last_token_gives_the_advantages_of_the_reference_layout(vectors: Any) -> None:
    case = vectors["score_position"]
    rewards = torch.tensor([[0.0, case["score"]]], dtype=torch.float64)
    advantages, _ = gae(rewards, case["values"][None], torch.ones(1, 2), 1.0, case["lam"])
    torch.testing.assert_close(advantages[0], case["adv_score_on_eos"], rtol=0, atol=1e-9)


def test_what_stands_in_the_padding_never_reaches_the_result() -> None:
    mask = torch.tensor([[True, True, False, False]])
    clean = gae(torch.tensor([[0.1, 1.0, 0.0, 0.0]]), torch.tensor([[0.2, 0.3, 0.0, 0.0]]), mask, 1.0, 0.95)
    nan = float("nan")
    dirty = gae(torch.tensor([[0.1, 1.0, nan, nan]]), torch.tensor([[0.2, 0.3, nan, 7.0]]), mask, 1.0, 0.95)
    for one, other in zip(clean, dirty, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(
        whiten(torch.tensor([[1.0, 3.0, nan, 9.0]]), mask), whiten(torch.tensor([[1.0, 3.0, 0, 0]]), mask)
    )


def test_whitening_matches_the_reference(vectors: Any) -> None:
    case = vectors["whiten"]
    advantages, mask = case["advantages"], case["mask"]
    assert float(masked_mean(advantages, mask)) == pytest.approx(case["mean"], abs=1e-9)
    assert float(masked_variance(advantages, mask)) == pytest.approx(case["var_unbiased"], abs=1e-9)
    assert float(masked_variance(advantages, mask, unbiased=False)) == pytest.approx(case["var_biased"], abs=1e-9)
    torch.testing.assert_close(whiten(advantages, mask), case["whitened_unbiased"], rtol=0, atol=1e-9)
    torch.testing.assert_close(whiten(advantages, mask, unbiased=False), case["whitened_biased"], rtol=0, atol=1e-9)
    kept = whiten(case["rewards_in"], mask, shift_mean=False)
    torch.testing.assert_close(kept, case["rewards_whitened_keep_mean"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("values", [[[2.0, 2.0, 2.0]], [[5.0]]])
def test_equal_or_single_values_whiten_to_zero(values: list[list[float]]) -> None:
    tensor = torch.tensor(values)
    assert torch.equal(whiten(tensor, torch.ones_like(tensor)), torch.zeros_like(tensor))
