from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ftcli.core.errors import UsageError
from ftcli.models.heads import ScalarHead, load_head, random_head, rescale_head, save_head


def test_a_new_head_says_zero_in_float32_for_any_input() -> None:
    found = ScalarHead(8)(torch.randn(2, 3, 8, dtype=torch.bfloat16))
    assert found.dtype is torch.float32
    assert torch.equal(found, torch.zeros(2, 3))


def test_a_saved_head_comes_back_equal(tmp_path: Path) -> None:
    head = random_head(8, seed=3)
    save_head(tmp_path, head)
    inputs = torch.randn(4, 8)
    assert torch.equal(load_head(tmp_path)(inputs), head(inputs))


def test_random_heads_depend_on_the_seed_alone_and_have_the_asked_spread() -> None:
    torch.manual_seed(1)
    first = random_head(4095, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first.weight, random_head(4095, seed=3).weight)
    assert not torch.equal(first.weight, random_head(4095, seed=4).weight)
    assert float(first.weight.detach().std()) == pytest.approx(1 / 64, rel=0.05)


def test_rescaling_shifts_and_scales_the_output() -> None:
    head = random_head(8, seed=0)
    inputs = torch.randn(5, 8)
    before = head(inputs).detach()
    rescale_head(head, mean=-2.0, std=0.5)
    torch.testing.assert_close(head(inputs), (before + 2.0) / 0.5)


def test_a_folder_without_a_head_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"head\.safetensors"):
        load_head(tmp_path)
