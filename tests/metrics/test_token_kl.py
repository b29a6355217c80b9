from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.special import rel_entr
from transformers import AutoModelForCausalLM

from ftcli.metrics.token_kl import answer_logprobs, kl
from ftcli.models.generate import split_model

PAIRS = [([5, 9], [11, 7, 3]), ([4], [8]), ([6, 6, 6, 6], [9, 10])]


def test_log_probs_are_those_of_the_models_own_forward_pass(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    found = list(answer_logprobs(*split_model(model), PAIRS, pad_id=0, batch_size=2))
    for own, (prompt, answer) in zip(found, PAIRS, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(own, logits.double().log_softmax(dim=1), rtol=1e-9, atol=1e-9)


def test_kl_is_scipys_relative_entropy_and_exactly_zero_for_equal_models() -> None:
    generator = torch.Generator().manual_seed(0)
    base, tuned = torch.randn(2, 5, 30, generator=generator, dtype=torch.float64).log_softmax(dim=2)
    found = kl(base, tuned)
    assert found.tolist() == pytest.approx(rel_entr(base.exp().numpy(), tuned.exp().numpy()).sum(axis=1).tolist())
    assert kl(base, base).tolist() == [0.0] * 5


def test_a_token_that_the_base_never_says_counts_nothing() -> None:
    base = torch.tensor([[0.5, 0.5, 0.0]]).log()
    tuned = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert kl(base, tuned).tolist() == pytest.approx([0.5 * torch.log(torch.tensor(2.0)).item()])
