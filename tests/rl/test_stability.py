from __future__ import annotations

import copy

import pytest
import torch

from ftcli.models.generate import split_model
from ftcli.models.heads import random_head
from ftcli.rl.preferences import Comparison
from ftcli.rl.reward_model import RewardModel
from ftcli.rl.sequences import Exchange, collate
from ftcli.rl.stability import SAMPLE, computed_in, other_format, score_stability
from tests.rl.conftest import PAD, random_exchanges, tiny_adapter


def comparisons(count: int) -> list[Comparison]:
    return [
        Comparison([Exchange(one.prompt, one.response), Exchange(one.prompt, [*one.response, 3, 1])], [(0, 1)])
        for one in random_exchanges(count)
    ]


def reward(dtype: torch.dtype = torch.float32) -> RewardModel:
    return RewardModel(tiny_adapter(dtype).eval(), random_head(64, seed=0), PAD)


@pytest.mark.parametrize(("dtype", "other"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_computing_in_another_format_is_what_a_converted_model_computes(dtype: torch.dtype, other: torch.dtype) -> None:
    model = reward(dtype)
    converted = copy.deepcopy(model.model)
    for name, weight in converted.named_parameters():
        if ".lora_" not in name:
            weight.data = weight.data.to(other)
    batch = collate(random_exchanges(4), PAD)
    expected = RewardModel(converted, model.head, PAD).score(batch)
    before = model.score(batch)
    with computed_in(split_model(model.model)[0], dtype, other):
        assert torch.equal(model.score(batch), expected)
    assert not torch.equal(before, expected)
    assert torch.equal(model.score(batch), before)


def test_weights_come_back_when_scoring_fails() -> None:
    model = reward()
    before = {name: weight.clone() for name, weight in model.model.named_parameters()}
    backbone = split_model(model.model)[0]

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    hook = backbone.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"), computed_in(backbone, torch.float32, torch.bfloat16):
        model.score(collate(random_exchanges(2), PAD))
    hook.remove()
    after = dict(model.model.named_parameters())
    assert all(
        after[name].dtype == weight.dtype and torch.equal(after[name], weight) for name, weight in before.items()
    )


def test_ragged_batches_change_scores_by_rounding_alone() -> None:
    found = score_stability(reward(), comparisons(40), None)
    assert found["batch"]["answers"] == SAMPLE
    assert found["batch"]["pairs"] == SAMPLE // 2
    assert found["batch"]["max_difference"] < 1e-5
    assert found["batch"]["order_flips"] == 0.0


def test_bfloat16_is_compared_with_float32_whichever_the_model_has() -> None:
    found = score_stability(reward(), comparisons(6), torch.bfloat16)["format"]
    assert (found["own"], found["other"], found["answers"]) == ("fp32", "bf16", 12)
    assert 1e-5 < found["max_difference"] < 0.3
    turned = score_stability(reward(torch.bfloat16), comparisons(6), torch.float32)["format"]
    assert (turned["own"], turned["other"]) == ("bf16", "fp32")
    assert 1e-5 < turned["max_difference"] < 0.3


def test_other_formats_are_not_converted() -> None:
    assert other_format(reward(torch.float64)) is None
    assert score_stability(reward(torch.float64), comparisons(2), None)["format"] is None


@pytest.mark.parametrize("is_fast", [True, False])
def test_bfloat16_is_left_out_where_the_hardware_has_none(is_fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": is_fast})
    assert other_format(reward()) == (torch.bfloat16 if is_fast else None)
    assert other_format(reward(torch.bfloat16)) == (torch.float32 if is_fast else None)
