"""What PEFT does with several adapters on one backbone, for which `ftcli.rl.roles` has its rules. Where a test of PEFT's own
behaviour fails after an update, the rule that it stands for may have become unnecessary."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ftcli.rl.roles import POLICY, VALUE, LoraRoles, lora_roles, recompute_activations
from ftcli.rl.sequences import collate
from tests.rl.conftest import PAD, random_exchanges, tiny_adapter

BATCH = collate(random_exchanges(4), PAD)
IDS = BATCH.ids


def with_value_adapter() -> Any:
    """A plain `PeftModel` with a second adapter, in float64 so that gradients can be compared closely."""
    model = tiny_adapter(torch.float64)
    model.add_adapter(VALUE, copy.deepcopy(model.peft_config[POLICY]))
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if f"lora_B.{VALUE}" in name:
            weight.data = torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.1
    return model


def gradients(model: Any, adapter: str) -> list[Tensor | None]:
    return [weight.grad for name, weight in model.named_parameters() if ".lora_" in name and f".{adapter}." in name]


def loss(model: Any, adapter: str) -> Tensor:
    model.set_adapter(adapter)
    found: Tensor = model(input_ids=IDS, use_cache=False).logits.square().mean()
    return found


def separately(model: Any) -> list[Tensor]:
    for adapter in (POLICY, VALUE):
        loss(model, adapter).backward()
    return [one.clone() for one in gradients(model, POLICY) if one is not None]


def test_a_joint_backward_after_a_switch_drops_every_gradient_of_the_policy() -> None:
    model = with_value_adapter()
    (loss(model, POLICY) + loss(model, VALUE)).backward()
    assert all(one is None for one in gradients(model, POLICY))
    assert all(one is not None for one in gradients(model, VALUE))


@pytest.mark.parametrize("again", [False, True])
def test_a_joint_backward_with_all_gradients_on_is_wrong_where_activations_are_computed_twice(again: bool) -> None:
    model = with_value_adapter()
    expected = separately(model)
    model.zero_grad(set_to_none=True)
    if again:
        recompute_activations(model)
    total = loss(model, POLICY) + loss(model, VALUE)
    for name, weight in model.named_parameters():
        weight.requires_grad_(".lora_" in name)
    total.backward()
    pairs = zip(gradients(model, POLICY), expected, strict=True)
    same = all(found is not None and torch.allclose(found, one) for found, one in pairs)
    assert same is not again


def test_a_new_adapter_does_not_require_gradients_until_it_is_active() -> None:
    model = with_value_adapter()
    weights = [weight for name, weight in model.named_parameters() if f".{VALUE}." in name]
    assert not any(weight.requires_grad for weight in weights)
    roles = lora_roles(tiny_adapter(), is_fresh=False, value_init="zero")
    assert len(roles.value_parameters()) == len(roles.policy_parameters()) > 0  # by name, whatever is active
    roles.values(BATCH, torch.empty(0))
    assert all(weight.requires_grad for weight in roles.value_parameters())


def policy_gradients(roles: LoraRoles, *, looks_at_the_reference: bool) -> list[Tensor]:
    logprobs, _ = roles.policy(BATCH, 1.0)
    if looks_at_the_reference:
        roles.reference(BATCH, 1.0)
    logprobs.sum().backward()
    return [weight.grad for weight in roles.policy_parameters() if weight.grad is not None]


def test_adapters_switched_off_between_forward_and_backward_leave_the_gradient_as_it_is() -> None:
    plain, looked = (
        policy_gradients(
            lora_roles(tiny_adapter(), is_fresh=True, value_init="head_only"), looks_at_the_reference=looks
        )
        for looks in (False, True)
    )
    assert len(plain) == len(looked) > 0
    assert all(torch.equal(one, other) for one, other in zip(plain, looked, strict=True))


def test_a_frozen_copy_of_an_adapter_gives_the_same_bits_and_requires_no_gradient() -> None:
    roles = lora_roles(tiny_adapter(), is_fresh=False, value_init="head_only")
    assert torch.equal(roles.reference(BATCH, 1.0), roles.measure_policy(BATCH, 1.0).logprobs)
    roles.reference(BATCH, 1.0)
    weights = [weight for name, weight in roles.model.named_parameters() if ".ref." in name]
    assert weights
    assert not any(weight.requires_grad for weight in weights)


def test_one_batch_can_mix_adapters_in_evaluation_and_not_in_training() -> None:
    model = with_value_adapter().eval()
    names = [POLICY, VALUE, "__base__", POLICY]
    with torch.no_grad():
        mixed = model(input_ids=IDS, use_cache=False, adapter_names=names).logits
        for row, adapter in enumerate(names):
            if adapter == "__base__":
                with model.disable_adapter():
                    alone = model(input_ids=IDS, use_cache=False).logits
            else:
                model.set_adapter(adapter)
                alone = model(input_ids=IDS, use_cache=False).logits
            torch.testing.assert_close(mixed[row], alone[row])
    with pytest.raises(ValueError, match="training mode"):
        model.train()(input_ids=IDS, use_cache=False, adapter_names=names)
