from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from ftcli.data.chat import render_answer, stop_token_ids
from ftcli.metrics import perplexity as module
from ftcli.metrics.perplexity import (
    AnswerScore,
    bits_per_byte,
    log_perplexity,
    of_texts,
    score_answers,
    windows,
)
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
    assert math.exp(log_perplexity(scores).value()) == pytest.approx((100 * 256) ** 0.1)


def test_each_finished_batch_is_told_with_its_rows(tiny_model, pairs):
    told: dict[int, AnswerScore] = {}
    sizes: list[int] = []

    def hear(rows, scores):
        sizes.append(len(rows))
        told.update(zip(rows, scores, strict=True))

    model = split_model(load(tiny_model, torch.float32))
    found = score_answers(*model, pairs, pad_id=0, batch_size=2, on_rows=hear)
    assert sizes == [2, 2, 1]
    assert [told[row] for row in range(5)] == found


# Whole texts ---------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(2, 20), st.data(), st.sampled_from([None, 99]))
def test_windows_score_every_token_once_and_in_order(size, context, data, prefix):
    stride = data.draw(st.integers(1, context - 1))
    text = list(range(size))
    pairs = windows(text, context, stride, prefix)
    assert [token for _, answer in pairs for token in answer] == text[0 if prefix is not None else 1 :]
    assert all(prompt and answer and len(prompt) + len(answer) <= context for prompt, answer in pairs)
    assert all(len(prompt) >= context - stride for prompt, _ in pairs[1:])
    whole = [*([] if prefix is None else [prefix]), *text]
    for place, (prompt, answer) in enumerate(pairs):
        assert prompt + answer == whole[place * stride : place * stride + len(prompt) + len(answer)]


@pytest.mark.parametrize("stride", [0, 8, 9])
def test_a_stride_that_would_lose_tokens_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride {stride} must be above 0 and below context 8"):
        windows([1, 2, 3], 8, stride)


def score_texts(
    model: Any, texts: list[list[int]], pad_id: int, context: int = 1024, stride: int = 512, prefix: int | None = None
) -> list[AnswerScore]:
    parts = [windows(text, context, stride, prefix) for text in texts]
    pairs = [pair for own in parts for pair in own]
    return of_texts(parts, score_answers(*model, pairs, pad_id=pad_id, batch_size=2) if pairs else [])


def test_a_text_within_one_window_costs_what_transformers_says(tiny_model):
    model = load(tiny_model, torch.float64)
    texts = [[5, 9, 11, 7, 3, 20], [4, 4], [6]]
    found = score_texts(split_model(model), texts, pad_id=0, context=16, stride=8)
    for score, text in zip(found[:2], texts, strict=False):
        assert score.tokens == len(text) - 1
        assert score.nll == pytest.approx(loss_of_transformers(model, text[:1], text[1:]) * score.tokens, rel=1e-7)
    assert found[2] == AnswerScore(0, 0)
    assert score_texts(split_model(model), [[]], pad_id=0) == [AnswerScore(0, 0)]


TEXTS = {
    "The capital of France is Paris.": (7, 15.404743, 31.747357, 17.266258),
    "Water boils at 100 degrees Celsius at sea level.": (13, 38.854176, 50.136946, 27.622298),
    "I like cheese.": (4, 20.339773, 24.262772, 23.592598),
    "Ünïcödé text, emoji 🙂 and 日本語.": (22, 111.353923, 129.360249, 126.034405),
}
"""Tokens, and nll in nats without prefix, after token 1 and after token 0; float64, from a plain loop over the model."""

GETTYSBURG = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and dedicated "
    "to the proposition that all men are created equal. Now we are engaged in a great civil war, testing whether that nation, or "
    "any nation so conceived and so dedicated, can long endure. We are met on a great battle-field of that war. We have come to "
    "dedicate a portion of that field, as a final resting place for those who here gave their lives that that nation might live. "
    "It is altogether fitting and proper that we should do this. But, in a larger sense, we can not dedicate -- we can not "
    "consecrate -- we can not hallow -- this ground. The brave men, living and dead, who struggled here, have consecrated it, far "
    "above our poor power to add or detract. The world will little note, nor long remember what we say here, but it can never "
    "forget what they did here. It is for us the living, rather, to be dedicated here to the unfinished work which they who fought "
    "here have thus far so nobly advanced. It is rather for us to be here dedicated to the great task remaining before us -- that "
    "from these honored dead we take increased devotion to that cause for which they gave the last full measure of devotion -- "
    "that we here highly resolve that these dead shall not have died in vain -- that this nation, under God, shall have a new "
    "birth of freedom -- and that government of the people, by the people, for the people, shall not perish from the earth."
)


@pytest.fixture(scope="module")
def smollm2() -> Any:
    from ftcli.core.stage import Kind
    from ftcli.pipeline.resolve import from_outside

    folder = from_outside("demo:smollm2", Kind.MODEL, "").path
    return load_tokenizer(folder), split_model(load(folder, torch.float32))


@pytest.mark.model
def test_short_texts_of_the_demo_model_match_the_reference(smollm2):
    tokenizer, model = smollm2
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    for place, prefix in enumerate((None, 1, 0), start=1):
        found = score_texts(model, ids, pad_id=2, prefix=prefix)
        assert [one.tokens for one in found] == [row[0] - (prefix is None) for row in TEXTS.values()]
        assert [one.nll for one in found] == pytest.approx([row[place] for row in TEXTS.values()], rel=1e-4)
    assert bits_per_byte(found, [len(text.encode()) for text in TEXTS]).value() == pytest.approx(2.063431, rel=1e-4)


@pytest.mark.model
def test_sliding_windows_of_the_demo_model_match_the_reference(smollm2):
    tokenizer, model = smollm2
    ids = tokenizer(GETTYSBURG, add_special_tokens=False).input_ids
    expected = {(1024, 512): 12.764216, (128, 127): 18.724624, (128, 64): 14.098097, (128, 32): 13.494697}
    expected |= {(128, 16): 13.309290, (64, 32): 17.044017}
    for (context, stride), value in expected.items():
        (found,) = score_texts(model, [ids], pad_id=2, context=context, stride=stride, prefix=0)
        assert found.tokens == 315
        assert math.exp(log_perplexity([found]).value()) == pytest.approx(value, rel=1e-4)
    (bare,) = score_texts(model, [ids], pad_id=2)
    assert bare.tokens == 314
    assert math.exp(log_perplexity([bare]).value()) == pytest.approx(12.878245, rel=1e-4)
