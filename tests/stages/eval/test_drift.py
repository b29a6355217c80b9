from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.stage import Kind
from ftcli.stages.eval.bench import Bench
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.drift import ANSWER_TOKENS, PROMPTS, Unlike, kl_items, suite_kl
from ftcli.stages.eval.subject import Subject
from ftcli.stages.eval.suite import CHAT_KINDS, load_suite
from tests.conftest import artifact
from tests.tiny import write_tiny_model

WHOLE = load_suite("general")
SUITE = replace(WHOLE, items=tuple(WHOLE.of("facts")[:6] + WHOLE.of("format")[:5] + WHOLE.of("code")[:2]))


def subject_of(folder: Path, cache: Path, label: str = "") -> Subject:
    bench = Bench(torch.float32, torch.device("cpu"))
    return Subject(artifact(Kind.MODEL, folder, label=label), bench, Cache(cache / "eval.sqlite"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tuned", seed=1)


def test_a_model_against_itself_is_exactly_zero(tiny_model: Path, tmp_path: Path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    figure = suite_kl(subject_of(tiny_model, tmp_path / "a"), subject_of(copy, tmp_path / "b"), SUITE, scratch)
    assert figure.examples.statistics[:, 0].tolist() == [0.0] * 11
    assert figure.value() == 0.0


def test_kl_is_that_of_torch_along_the_answers_of_transformers(tiny_model: Path, tuned: Path, tmp_path: Path):
    figure = suite_kl(subject_of(tiny_model, tmp_path), subject_of(tuned, tmp_path), SUITE, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    base, other = (AutoModelForCausalLM.from_pretrained(folder).double() for folder in (tiny_model, tuned))
    expected, tokens = [], []
    for item in kl_items(SUITE):
        text = tokenizer.apply_chat_template(item.messages, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        whole = base.generate(prompt, max_new_tokens=ANSWER_TOKENS, do_sample=False)
        with torch.no_grad():
            first, second = (
                model(whole).logits[0, prompt.shape[1] - 1 : -1].log_softmax(dim=1) for model in (base, other)
            )
        expected.append(float(torch.nn.functional.kl_div(second, first, reduction="sum", log_target=True)))
        tokens.append(whole.shape[1] - prompt.shape[1])
    assert figure.ids == tuple(item.id for item in kl_items(SUITE))
    assert figure.examples.statistics[:, 0] == pytest.approx(expected, rel=1e-4)
    assert figure.examples.statistics[:, 1].tolist() == tokens
    assert figure.value() == pytest.approx(sum(expected) / sum(tokens), rel=1e-4)


def test_the_base_is_computed_once_for_two_tuned_models(tiny_model: Path, tuned: Path, tmp_path: Path):
    base = subject_of(tiny_model, tmp_path)
    first = suite_kl(base, subject_of(tuned, tmp_path / "a"), SUITE, tmp_path)
    (stored,) = tmp_path.glob("kl-*.npy")
    base.model = None  # type: ignore[assignment]  # a call would fail
    second = suite_kl(base, subject_of(tuned, tmp_path / "b"), SUITE, tmp_path)
    assert (second.examples.statistics == first.examples.statistics).all()
    assert list(tmp_path.glob("kl-*")) == [stored]


def test_the_second_time_no_model_is_loaded(tiny_model: Path, tuned: Path, tmp_path: Path):
    first = suite_kl(subject_of(tiny_model, tmp_path), subject_of(tuned, tmp_path), SUITE, tmp_path)
    scratch = tmp_path / "elsewhere"
    scratch.mkdir()
    base, other = subject_of(tiny_model, tmp_path), subject_of(tuned, tmp_path)
    second = suite_kl(base, other, SUITE, scratch)
    assert (second.examples.statistics == first.examples.statistics).all()
    assert (base.bench.loadings, other.bench.loadings) == (0, 0)
    assert list(scratch.iterdir()) == []


def test_another_base_is_another_comparison(tiny_model: Path, tuned: Path, tmp_path: Path):
    figure = suite_kl(subject_of(tiny_model, tmp_path), subject_of(tuned, tmp_path), SUITE, tmp_path)
    other = suite_kl(subject_of(tuned, tmp_path), subject_of(tiny_model, tmp_path), SUITE, tmp_path)
    assert figure.comparable != other.comparable


def test_models_of_different_vocabularies_are_refused(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "larger"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["kwyjibo"])
    tokenizer.save_pretrained(folder)
    base, other = subject_of(tiny_model, tmp_path, "base"), subject_of(folder, tmp_path, "larger")
    with pytest.raises(Unlike, match="base and larger have different vocabularies"):
        suite_kl(base, other, SUITE, tmp_path)


def test_models_whose_heads_differ_are_refused(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "padded"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    words = model.config.vocab_size
    model.resize_token_embeddings(words + 8)
    model.save_pretrained(folder)
    base, other = subject_of(tiny_model, tmp_path, "base"), subject_of(folder, tmp_path, "padded")
    with pytest.raises(Unlike, match=f"base predicts {words} words and padded {words + 8}"):
        suite_kl(base, other, SUITE, tmp_path)


def test_a_base_without_a_chat_template_is_refused(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "plain"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    base, other = subject_of(folder, tmp_path, "plain"), subject_of(tiny_model, tmp_path, "x")
    with pytest.raises(Unlike, match="plain has no chat template"):
        suite_kl(base, other, SUITE, tmp_path)


def test_the_prompts_are_spread_over_all_kinds():
    items = kl_items(WHOLE)
    assert len({item.id for item in items}) == PROMPTS
    assert {item.kind for item in items} == set(CHAT_KINDS)
