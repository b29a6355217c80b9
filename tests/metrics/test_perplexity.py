from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.data.chat import render_answer, stop_token_ids
from ftcli.metrics import perplexity as module
from ftcli.metrics.perplexity import AnswerScore, log_perplexity, perplexity, score_answers
from ftcli.models.generate import split_model
from ftcli.models.load import load_tokenizer
from tests.tiny import messages_row

ANSWERS = [
    "a cat",
    "Return the list of the given object when the name is not found.",
    "the",
    "open ( file ) and close",
    "?",
]


@pytest.fixture(scope="module")
def pairs(tiny_model: Path) -> list[tuple[list[int], list[int]]]:
    tokenizer = load_tokenizer(tiny_model)
    prompts = [messages_row(index)["messages"][:1] for index in range(len(ANSWERS))]  # type: ignore[index]
    stop_ids = stop_token_ids(tokenizer)
    return [render_answer(tokenizer, prompt, answer, stop_ids) for prompt, answer in zip(prompts, ANSWERS, strict=True)]


def load(folder: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def loss_of_transformers(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Its softmax is float32 also for a float64 model."""
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
def test_nll_is_transformers_own_loss_times_the_answer_tokens(tiny_model, pairs, dtype, tolerance):
    model = load(tiny_model, dtype)
    scores = score_answers(*split_model(model), pairs, pad_id=0, batch_size=3)
    for score, (prompt, answer) in zip(scores, pairs, strict=True):
        assert score.tokens == len(answer)
        assert score.nll == pytest.approx(loss_of_transformers(model, prompt, answer) * len(answer), rel=tolerance)


def test_the_answer_is_scored_through_its_end_of_turn_token_and_no_further(tiny_model, pairs):
    tokenizer = load_tokenizer(tiny_model)
    assert all(
        answer[-1] == tokenizer.eos_token_id and answer.count(tokenizer.eos_token_id) == 1 for _, answer in pairs
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_batch_size_changes_nothing(tiny_model, pairs, batch_size):
    backbone, head = split_model(load(tiny_model, torch.float64))
    alone = score_answers(backbone, head, pairs, pad_id=0, batch_size=1)
    batched = score_answers(backbone, head, pairs, pad_id=0, batch_size=batch_size)
    assert [one.nll for one in batched] == pytest.approx([one.nll for one in alone], rel=1e-12)


def test_what_stands_in_the_padding_does_not_matter(tiny_model, pairs):
    backbone, head = split_model(load(tiny_model, torch.float64))
    first = score_answers(backbone, head, pairs, pad_id=0)
    assert score_answers(backbone, head, pairs, pad_id=77) == first


def test_the_head_works_in_slices(tiny_model, pairs, monkeypatch):
    backbone, head = split_model(load(tiny_model, torch.float64))
    seen: list[int] = []
    handle = head.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    monkeypatch.setattr(module, "HEAD_TOKENS", 4)
    sliced = score_answers(backbone, head, pairs, pad_id=0)
    handle.remove()
    assert max(seen) == 4
    assert sum(seen) == sum(len(answer) for _, answer in pairs)
    monkeypatch.undo()
    assert [one.nll for one in sliced] == pytest.approx(
        [one.nll for one in score_answers(backbone, head, pairs, pad_id=0)]
    )


def test_corpus_perplexity_weighs_tokens_and_not_texts():
    scores = [AnswerScore(nll=2 * math.log(10), tokens=2), AnswerScore(nll=8 * math.log(2), tokens=8)]
    # 10 twice and 2 eight times: (10^2 * 2^8)^(1/10); the mean of the texts' perplexities would be 6
    assert perplexity(scores) == pytest.approx((100 * 256) ** 0.1)
    assert log_perplexity(scores).value() == pytest.approx(math.log(25600) / 10)


def test_progress_counts_finished_rows(tiny_model, pairs):
    seen: list[int] = []
    score_answers(*split_model(load(tiny_model, torch.float32)), pairs, pad_id=0, batch_size=2, on_batch=seen.append)
    assert seen == [2, 4, 5]
