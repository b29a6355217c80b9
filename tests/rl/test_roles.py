from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from torch.nn.functional import pad

from ftcli.core.errors import UsageError
from ftcli.models.heads import random_head, save_head
from ftcli.models.load import save_adapter
from ftcli.rl.roles import FullRoles, LoraRoles, ValueInit, lora_roles
from ftcli.rl.sequences import Batch, collate
from tests.rl.conftest import EOS, PAD, full_roles, random_exchanges, tiny_adapter, tiny_llama

INITS: list[ValueInit] = ["reward", "zero", "head_only"]


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    save_adapter(tiny_adapter(seed=7), folder)
    save_head(folder, random_head(64, seed=7))
    return folder


def batch(**kwargs: Any) -> Batch:
    return collate(random_exchanges(8, **kwargs), PAD)


def roles(reward: Path, value_init: ValueInit, *, trained: bool = True) -> LoraRoles:
    return lora_roles(tiny_adapter(trained=trained), is_fresh=not trained, value_init=value_init, reward=reward)


@pytest.mark.parametrize("trained", [True, False], ids=["continued adapter", "fresh adapter"])
def test_the_reference_is_the_starting_policy_bit_for_bit(reward_folder: Path, trained: bool) -> None:
    found = roles(reward_folder, "head_only", trained=trained)
    policy = found.policy(batch(), 1.0).logprobs
    assert torch.equal(policy, found.reference(batch(), 1.0))
    assert torch.equal(policy, found.measure_policy(batch(), 1.0).logprobs)


def test_an_adapter_without_lora_matrices_is_refused() -> None:
    settings = IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    )
    with pytest.raises(UsageError, match=r"adapter \(IA3\) has no LoRA matrices") as caught:
        lora_roles(get_peft_model(tiny_llama(), settings), is_fresh=False, value_init="zero")
    assert "ftcli export --from MODEL --to merged" in caught.value.hint


def test_the_reference_of_a_continued_adapter_is_not_the_bare_base(reward_folder: Path) -> None:
    found = roles(reward_folder, "head_only")
    bare = lora_roles(tiny_adapter(trained=False), is_fresh=True, value_init="head_only")
    assert not torch.allclose(found.reference(batch(), 1.0), bare.reference(batch(), 1.0), atol=1e-3)


def test_the_reference_stays_when_the_policy_moves(reward_folder: Path) -> None:
    found = roles(reward_folder, "zero")
    before = found.reference(batch(), 1.0)
    with torch.no_grad():
        for weight in found.policy_parameters():
            weight.add_(0.05)
    assert torch.equal(found.reference(batch(), 1.0), before)
    assert not torch.allclose(found.policy(batch(), 1.0).logprobs, before, atol=1e-3)


def test_log_probs_agree_with_the_whole_models_forward() -> None:
    policy = tiny_llama()
    found = full_roles().policy(batch(), 0.8).logprobs
    for row, exchange in enumerate(random_exchanges(8)):
        ids = torch.tensor([exchange.prompt + exchange.response])
        logprobs = torch.log_softmax(policy(input_ids=ids).logits[0] / 0.8, -1)
        start = len(exchange.prompt)
        expected = [float(logprobs[start + t - 1, token]) for t, token in enumerate(exchange.response)]
        assert found[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
        assert not found[row, len(expected) :].any()


@pytest.mark.parametrize("value_init", INITS)
def test_both_parts_get_gradients_and_the_rest_none(reward_folder: Path, value_init: ValueInit) -> None:
    found = roles(reward_folder, value_init)
    with torch.no_grad():
        for weight in found.head_parameters():
            weight.add_(0.1)  # a zero head would pass no gradient on
    for _ in range(2):  # the second round has been through every switch of adapters
        out = found.policy(batch(), 1.0)
        found.reference(batch(), 1.0)
        out = found.policy(batch(), 1.0)
        out.logprobs.sum().backward()
        found.values(batch(), out.trunk).pow(2).sum().backward()
        found.reward_model(PAD).score_exchanges(random_exchanges(3))
    trained = [*found.policy_parameters(), *found.value_parameters(), *found.head_parameters()]
    assert len(found.policy_parameters()) == 28  # 2 layers of 7 linear layers, A and B each
    assert len(found.value_parameters()) == (0 if value_init == "head_only" else 28)
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in trained)
    ours = {id(weight) for weight in trained}
    assert all(weight.grad is None for weight in found.model.parameters() if id(weight) not in ours)


@pytest.mark.parametrize("value_init", ["zero", "head_only"])
def test_a_zero_head_starts_at_zero(reward_folder: Path, value_init: ValueInit) -> None:
    found = roles(reward_folder, value_init)
    trunk = found.policy(batch(), 1.0).trunk
    assert not found.values(batch(), trunk).any()


def test_a_critic_from_the_reward_model_ends_on_its_score_of_the_unfinished_answer(reward_folder: Path) -> None:
    found = roles(reward_folder, "reward")
    exchanges = random_exchanges(8)
    values = found.values(batch(), found.policy(batch(), 1.0).trunk)
    shorter = [replace(one, response=one.response[:-1]) for one in exchanges if len(one.response) > 1]
    scores = iter(found.reward_model(PAD).score_exchanges(shorter))
    for row, one in enumerate(exchanges):
        if len(one.response) > 1:
            assert float(values[row, len(one.response) - 1]) == pytest.approx(next(scores), abs=1e-5)


def test_a_critic_from_a_reward_model_needs_one() -> None:
    with pytest.raises(ValueError, match="needs one"):
        lora_roles(tiny_adapter(), is_fresh=False, value_init="reward")
    with pytest.raises(ValueError, match="without a reward adapter"):
        lora_roles(tiny_adapter(), is_fresh=False, value_init="zero").reward_model(PAD)


@pytest.mark.parametrize("value_init", INITS)
def test_state_brings_policy_and_critic_back(reward_folder: Path, value_init: ValueInit) -> None:
    first, second = roles(reward_folder, value_init), roles(reward_folder, value_init)
    with torch.no_grad():
        for weight in [*first.policy_parameters(), *first.value_parameters(), *first.head_parameters()]:
            weight.add_(0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    out = [one.policy(batch(), 1.0) for one in (first, second)]
    assert torch.equal(out[0].logprobs, out[1].logprobs)
    assert torch.equal(first.values(batch(), out[0].trunk), second.values(batch(), out[1].trunk))


def test_the_saved_policy_is_a_plain_adapter(reward_folder: Path, tmp_path: Path) -> None:
    found = roles(reward_folder, "reward")
    found.reference(batch(), 1.0)
    save_adapter(found.sampler(), tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    expected = tiny_adapter()
    ids = torch.arange(2, 12)[None]
    assert torch.equal(again(input_ids=ids).logits, expected(input_ids=ids).logits)


def test_dropout_of_the_adapter_is_off_in_every_part(reward_folder: Path) -> None:
    found = lora_roles(tiny_adapter(dropout=0.5), is_fresh=False, value_init="zero", reward=reward_folder)
    found.model.train()
    assert torch.equal(found.policy(batch(), 1.0).logprobs, found.reference(batch(), 1.0))


def gradients(found: FullRoles, layout: Batch, weights: torch.Tensor) -> torch.Tensor:
    """Gradient of a weighted sum of log-probs and values; ``weights`` [B, R]."""
    for weight in found.policy_model.parameters():
        weight.grad = None
    logprobs = found.policy(layout, 1.0).logprobs
    (logprobs * weights).sum().backward()
    return torch.cat([w.grad.flatten() for w in found.policy_model.parameters() if w.grad is not None])


def test_padding_columns_and_the_order_of_rows_change_no_gradient() -> None:
    found = full_roles(dtype=torch.float64)
    exchanges = random_exchanges(8)
    layout = collate(exchanges, PAD)
    weights = torch.randn(layout.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = gradients(found, layout, weights)
    wider = replace(layout, ids=pad(layout.ids, (0, 5), value=EOS))
    order = [3, 1, 7, 0, 6, 2, 5, 4]
    permuted = collate([exchanges[index] for index in order], PAD)
    for other in (gradients(found, wider, weights), gradients(found, permuted, weights[order])):
        assert float((other - expected).norm() / expected.norm()) < 1e-12
