from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from ftcli.models.logprobs import token_logprobs, token_scores


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(16, 50, bias=False, dtype=dtype)
    return torch.randn(37, 16, dtype=dtype), head, torch.randint(0, 50, (37,))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_entropy_agree_with_a_categorical(temperature: float) -> None:
    hidden, head, targets = case()
    expected = Categorical(logits=head(hidden) / temperature)
    found = token_scores(hidden, head, targets, temperature)
    torch.testing.assert_close(found.logprobs, expected.log_prob(targets))
    torch.testing.assert_close(found.entropy, expected.entropy())
    assert torch.equal(found.logprobs, token_logprobs(hidden, head, targets, temperature))


def test_chunks_give_the_same_values_and_gradients() -> None:
    hidden, head, targets = case()
    found = []
    for chunk in (1024, 5):
        inputs = hidden.clone().requires_grad_()
        head.zero_grad()
        logprobs = token_logprobs(inputs, head, targets, chunk_tokens=chunk)
        (logprobs * torch.linspace(-1, 1, 37)).sum().backward()
        found.append((logprobs.detach(), inputs.grad, head.weight.grad.clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_softmax_of_a_bfloat16_model_is_float32_and_of_a_float64_model_float64() -> None:
    assert token_logprobs(*case(torch.bfloat16)).dtype is torch.float32
    assert token_logprobs(*case(torch.float64)).dtype is torch.float64


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_frozen_head_gives_the_values_and_gradients_of_the_full_softmax(
    chunk: int | None, temperature: float
) -> None:
    hidden, head, targets = case()
    head.requires_grad_(False)
    weights = torch.linspace(-1, 1, 37)
    found = []
    for compute in (
        lambda x: token_logprobs(x, head, targets, temperature, chunk),
        lambda x: torch.log_softmax(head(x) / temperature, dim=1)[torch.arange(37), targets],
    ):
        inputs = hidden.clone().requires_grad_()
        logprobs = compute(inputs)
        (logprobs * weights).sum().backward()
        found.append((logprobs.detach(), inputs.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_log_probs_have_the_same_bits_with_gradient_and_without_and_beside_entropies(is_frozen: bool) -> None:
    hidden, head, targets = case(torch.bfloat16)
    head.requires_grad_(not is_frozen)
    with_gradient = token_logprobs(hidden.clone().requires_grad_(), head, targets, chunk_tokens=5).detach()
    with torch.no_grad():
        assert torch.equal(token_logprobs(hidden, head, targets, chunk_tokens=5), with_gradient)
        assert torch.equal(token_scores(hidden, head, targets, chunk_tokens=5).logprobs, with_gradient)


def test_entropies_have_the_gradient_of_a_categoricals() -> None:
    hidden, head, targets = case()
    head.requires_grad_(False)
    found = []
    for compute in (
        lambda x: token_scores(x, head, targets, chunk_tokens=5).entropy,
        lambda x: Categorical(logits=head(x)).entropy(),
    ):
        inputs = hidden.clone().requires_grad_()
        (compute(inputs) * torch.linspace(-1, 1, 37)).sum().backward()
        found.append(inputs.grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
