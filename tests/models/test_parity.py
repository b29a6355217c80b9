from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.models.parity import answer_logprobs, compare


def test_the_figures_are_those_of_two_distributions_worked_by_hand() -> None:
    """Three positions over two words; at the second the likelier word changes."""
    one = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.9, 0.1]]).log()
    other = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]).log()
    found = compare(one, other, [([7], [0, 1]), ([7], [0])])
    assert found.positions == 3
    assert found.top1_agreement == pytest.approx(2 / 3)
    assert found.logprob_max_diff == pytest.approx(math.log(3))
    assert found.logprob_mean_diff == pytest.approx(math.log(3) / 3)
    assert found.kl == pytest.approx((0.75 * math.log(3) - 0.25 * math.log(3)) / 3)


def test_a_model_agrees_with_itself() -> None:
    one = torch.randn(5, 11, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    found = compare(one, one.clone(), [([1], [2, 3, 4, 5, 6])])
    assert (found.top1_agreement, found.logprob_max_diff, found.kl) == (1, 0, 0)


def test_positions_are_those_that_predict_an_answers_tokens(tiny_model: Path) -> None:
    """The oracle is transformers' own loss, with the prompt masked."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompt, answer = [5, 6, 7, 8], [9, 10, 2]
    found = answer_logprobs(model, [(prompt, answer), ([4], [3])])
    assert found.shape == (4, model.config.vocab_size)
    gold = found[torch.arange(3), torch.tensor(answer)]
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([prompt + answer]), labels=torch.tensor([[-100] * 4 + answer])).loss
    assert -gold.mean().item() == pytest.approx(loss.item(), rel=1e-5)
