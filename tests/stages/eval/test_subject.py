from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import load_base, load_model, load_tokenizer, write_base_record
from ftcli.stages.eval.bench import Bench, by_base
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.subject import Subject, tokenizer_digest
from ftcli.training.adapters import add_lora
from tests.conftest import artifact
from tests.tiny import write_tiny_model

CPU = torch.device("cpu")
PAIRS = [([1, 40, 41], [42, 43, 2]), ([1, 50], [51, 2]), ([1, 60, 61, 62, 63], [64])]
PROMPTS = [[1, 40, 41], [1, 50], [1, 60, 61, 62, 63]]
KEYS = ["a#0", "b#0", "c#0"]


def write_adapter(folder: Path, base: Artifact, *, seed: int = 1) -> Path:
    """A LoRA adapter whose weights are random and large enough to matter."""
    model = add_lora(
        load_base(base.path, torch.float32, CPU), r=4, alpha=8, dropout=0.0, target_modules=["q_proj", "v_proj"]
    )
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    write_base_record(folder, base)
    return folder


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model, label="base")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> Artifact:
    folder = write_adapter(tmp_path_factory.mktemp("adapters") / "lora", base)
    return artifact(Kind.MODEL, folder, label="lora", base=base)


def subject_of(model: Artifact, folder: Path, bench: Bench | None = None, **options: Any) -> Subject:
    return Subject(model, bench or Bench(torch.float32, CPU), Cache(folder / "eval.sqlite"), **options)


def expected_nll(model: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """By transformers' own loss, the mean over the tokens that are no -100."""
    found = []
    for prompt, answer in pairs:
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            loss = float(model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss)
        found.append(loss * len(answer))
    return found


def test_answers_cost_what_transformers_says(base: Artifact, lora: Artifact, tmp_path: Path) -> None:
    for model in (base, lora):
        scores = subject_of(model, tmp_path).answer_nll(PAIRS)
        expected = expected_nll(load_model(model, torch.float32, CPU), PAIRS)
        assert [score.nll for score in scores] == pytest.approx(expected, rel=1e-5)
        assert [score.tokens for score in scores] == [3, 2, 1]


def test_texts_cost_the_sum_of_their_windows(base: Artifact, tmp_path: Path) -> None:
    """A text of six in windows of four, two apart: of 1-2-3-4 all but the first token is scored, then 5 and 6 after 3 and 4."""
    text = [1, 40, 41, 42, 43, 44]
    [score] = subject_of(base, tmp_path).text_nll([text], context=4, stride=2)
    parts = [([1], [40, 41, 42]), ([41, 42], [43, 44])]
    assert score.tokens == 5
    assert score.nll == pytest.approx(sum(expected_nll(load_model(base, torch.float32, CPU), parts)), rel=1e-5)


def test_greedy_answers_are_those_of_transformers(base: Artifact, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base.path), load_tokenizer(base.path)
    found = subject_of(base, tmp_path).answers(PROMPTS, KEYS, max_new_tokens=5)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)[0, len(prompt) :].tolist()
        assert answer.ids == ids
        assert answer.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.finish_reason == ("stop" if ids[-1] == tokenizer.eos_token_id else "length")


def everything(subject: Subject) -> list[Any]:
    return [
        subject.answer_nll(PAIRS),
        subject.text_nll([[1, 40, 41, 42, 43]], context=4, stride=2),
        subject.answers(PROMPTS, KEYS, max_new_tokens=4),
        subject.answers(PROMPTS, KEYS, max_new_tokens=4, temperature=1.0),
    ]


def test_a_second_evaluation_computes_nothing_and_loads_nothing(base: Artifact, lora: Artifact, tmp_path: Path) -> None:
    for model in (base, lora):
        first = subject_of(model, tmp_path)
        found = everything(first)
        assert (first.computed, first.cached, first.bench.loadings) == (3 + 2 + 3 + 3, 0, 1)
        again = subject_of(replace(model, label="other", path=model.path), tmp_path, batch_size=1)
        assert everything(again) == found
        assert (again.computed, again.cached, again.bench.loadings) == (0, 11, 0)


@pytest.mark.parametrize(
    "change", ["seed", "row", "temperature", "length", "prompt", "dtype", "template"], ids=lambda name: name
)
def test_whatever_decides_a_sample_is_part_of_its_key(base: Artifact, tmp_path: Path, change: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 4, "temperature": 1.0}
    subject_of(base, tmp_path).answers(PROMPTS[:1], KEYS[:1], **options)
    dtype = torch.bfloat16 if change == "dtype" else torch.float32
    other = subject_of(base, tmp_path, Bench(dtype, CPU), seed=1 if change == "seed" else 0)
    if change == "template":
        other.tokenizer.chat_template += " "  # type: ignore[operator]
    prompts = [[1, 40, 42]] if change == "prompt" else PROMPTS[:1]
    keys = ["a#1"] if change == "row" else KEYS[:1]
    options |= {"temperature": {"temperature": 0.5}, "length": {"max_new_tokens": 3}}.get(change, {})
    other.answers(prompts, keys, **options)
    assert (other.computed, other.cached) == (1, 0)


def test_a_model_trained_again_into_the_same_folder_is_another(base: Artifact, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "lora", base, seed=1)
    first = subject_of(artifact(Kind.MODEL, folder, base=base), tmp_path)
    before = first.answer_nll(PAIRS)
    write_adapter(folder, base, seed=2)
    second = subject_of(artifact(Kind.MODEL, folder, base=base), tmp_path)
    after = second.answer_nll(PAIRS)
    assert second.computed == 3
    assert all(one.nll != other.nll for one, other in zip(before, after, strict=True))


def test_an_adapter_on_another_base_is_another_model(base: Artifact, lora: Artifact, tmp_path: Path) -> None:
    subject_of(lora, tmp_path).answer_nll(PAIRS)
    other = replace(lora, base=replace(base, digest="sha256:other"))
    assert subject_of(other, tmp_path).identity != subject_of(lora, tmp_path).identity


def test_equal_rows_are_computed_once(base: Artifact, tmp_path: Path) -> None:
    subject = subject_of(base, tmp_path)
    found = subject.answer_nll([PAIRS[0], PAIRS[1], PAIRS[0]])
    assert found[0] == found[2]
    assert subject.computed == 2


def test_what_was_computed_before_an_interruption_is_kept(base: Artifact, tmp_path: Path) -> None:
    def stop(task: str, done: int, total: int) -> None:
        assert (task, total) == ("base: perplexity", 3)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        subject_of(base, tmp_path, batch_size=1, progress=stop).answer_nll(PAIRS)
    again = subject_of(base, tmp_path)
    again.answer_nll(PAIRS)
    assert (again.computed, again.cached) == (1, 2)


def test_models_that_share_a_base_share_its_loading(base: Artifact, lora: Artifact, tmp_path: Path) -> None:
    second = artifact(Kind.MODEL, write_adapter(tmp_path / "second", base, seed=7), label="second", base=base)
    third = artifact(Kind.MODEL, write_tiny_model(tmp_path / "third", seed=9), label="third")
    bench = Bench(torch.float32, CPU)
    models = [lora, third, base, second]
    found = {}
    assert [model.label for model in by_base(models)] == ["lora", "base", "second", "third"]
    for model in by_base(models):
        subject = subject_of(model, tmp_path, bench)
        found[model.label] = [score.nll for score in subject.answer_nll(PAIRS)]
    assert bench.loadings == 2
    for model in models:
        alone = expected_nll(load_model(model, torch.float32, CPU), PAIRS)
        assert found[model.label] == pytest.approx(alone, rel=1e-5), model.label


def test_an_adapter_that_added_tokens_leaves_the_base_as_it_was(base: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    tokenizer = load_tokenizer(base.path)
    tokenizer.add_tokens(["<one>", "<two>"])
    model = load_base(base.path, torch.float32, CPU)
    model.resize_token_embeddings(len(tokenizer))
    adapted = add_lora(model, r=4, alpha=8, dropout=0.0, target_modules=["q_proj"])
    adapted.save_pretrained(folder, save_embedding_layers=True)
    tokenizer.save_pretrained(folder)
    write_base_record(folder, base)
    wide = artifact(Kind.MODEL, folder, label="wide", base=base)
    bench = Bench(torch.float32, CPU)
    rows = [bench.model(one).get_input_embeddings().weight.shape[0] for one in (base, wide, base)]
    assert rows == [rows[0], len(tokenizer), rows[0]]
    assert bench.loadings == 2, "the base was loaded anew"


@pytest.mark.parametrize("kind", ["low rank", "norm", "head", "embeddings", "biases", "rows"])
def test_an_adapter_that_is_taken_off_leaves_no_trace_in_the_base(tmp_path: Path, kind: str) -> None:
    """PEFT itself leaves modules that were trained whole, biases, and embeddings that were saved in place of the base's."""
    folder = write_tiny_model(tmp_path / "model")
    LlamaForCausalLM(AutoConfig.from_pretrained(folder, attention_bias=True)).save_pretrained(folder)
    base = artifact(Kind.MODEL, folder, label="base")
    options: dict[str, Any] = {
        "norm": {"modules_to_save": ["norm"]},
        "head": {"modules_to_save": ["lm_head"]},
        "biases": {"bias": "all"},
        "rows": {"trainable_token_indices": [40, 41]},
    }.get(kind, {})
    model = load_base(base.path, torch.float32, CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        if kind == "embeddings":
            model.get_input_embeddings().weight.add_(torch.randn_like(model.get_input_embeddings().weight))
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **options))
        for name, weight in adapted.named_parameters():
            if "modules_to_save" in name or "trainable_tokens_delta" in name or name.endswith(".bias"):
                weight.add_(torch.randn_like(weight))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=kind == "embeddings")
    write_base_record(tmp_path / "adapter", base)
    tuned = artifact(Kind.MODEL, tmp_path / "adapter", label="tuned", base=base)
    bench, ids = Bench(torch.float32, CPU), torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        before, between, after = (bench.model(one)(ids).logits for one in (base, tuned, base))
    assert not torch.equal(before, between)
    assert torch.equal(before, after)
    if kind == "low rank":
        assert bench.loadings == 1, "it was taken off, and not loaded anew"


def test_memory_that_runs_out_halves_the_batches_and_changes_nothing(
    base: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(subject_of(base, tmp_path / "roomy"))
    notes: list[str] = []
    subject = subject_of(base, tmp_path / "tight", batch_size=8, note=notes.append)
    backbone, sizes = subject.model().base_model, []
    forward = backbone.forward

    def small(*args: Any, **options: Any) -> Any:
        sizes.append(len(options["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return forward(*args, **options)

    monkeypatch.setattr(backbone, "forward", small)
    found = everything(subject)
    assert found[2:] == expected[2:]
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert [score.nll for score in one] == pytest.approx([score.nll for score in other], rel=1e-5)
    assert sizes.count(3) == 1, "what is known to be too much is not tried again"
    assert notes == ["base: out of memory; 1 rows at a time from here on"]


def test_the_chat_template_is_part_of_a_tokenizers_digest(base: Artifact) -> None:
    one, other = load_tokenizer(base.path), load_tokenizer(base.path)
    assert tokenizer_digest(one) == tokenizer_digest(other)
    other.chat_template += " "  # type: ignore[operator]
    assert tokenizer_digest(one) != tokenizer_digest(other)
    third = load_tokenizer(base.path)
    third.add_tokens(["<new>"])
    assert tokenizer_digest(one) != tokenizer_digest(third)
