"""The judge in this process against transformers' own forward pass of one question at a time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import load_model
from ftcli.stages.eval.bench import Bench
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.judge_prompt import Pair
from ftcli.stages.eval.judges import LocalJudge
from ftcli.stages.eval.subject import Subject
from tests.conftest import artifact
from tests.stages.eval.test_subject import write_adapter

CPU = torch.device("cpu")
PAIRS = [
    Pair("What is a cat?", "the cat", "the mat sat"),
    Pair("Why?", "", "and"),
    Pair("What does it do?", "no", "the file"),
]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Artifact:
    """The tiny model with positions for whole questions."""
    return artifact(
        Kind.MODEL, with_positions(tiny_model, tmp_path_factory.mktemp("wide") / "model", 2048), label="judge"
    )


def with_positions(source: Path, folder: Path, positions: int) -> Path:
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    return folder


def subject_of(model: Artifact, folder: Path, **options: Any) -> Subject:
    return Subject(model, Bench(torch.float32, CPU), Cache(folder / "eval.sqlite"), **options)


def expected(model: Any, tokenizer: Any, pair: Pair, letters: tuple[int, int], before: list[int]) -> float:
    """softmax over the two letters' log-probs after the rendered question."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": pair.question}], add_generation_prompt=True, return_dict=False
    )
    with torch.no_grad():
        logprobs = model(torch.tensor([[*asked, *before]])).logits[0, -1].log_softmax(dim=0)
    return float(logprobs[list(letters)].softmax(dim=0)[0])


def test_the_verdict_is_the_softmax_over_the_two_letters(wide: Artifact, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", wide)
    lora = artifact(Kind.MODEL, adapter, label="lora", base=wide)
    tokenizer = AutoTokenizer.from_pretrained(wide.path)
    letters = (tokenizer.convert_tokens_to_ids("A"), tokenizer.convert_tokens_to_ids("B"))
    assert tokenizer.unk_token_id not in letters
    for artifact_, batch_size in ((wide, 1), (wide, 8), (lora, 2)):
        own = load_model(artifact_, torch.float32, CPU)
        judge = LocalJudge(subject_of(artifact_, tmp_path / f"{artifact_.label}{batch_size}", batch_size=batch_size))
        found = judge.prefers_first(PAIRS)
        assert found == pytest.approx([expected(own, tokenizer, pair, letters, []) for pair in PAIRS], rel=1e-4)
        assert len(set(found)) == 3


def test_a_question_costs_one_pass_and_a_known_one_none(wide: Artifact, tmp_path: Path) -> None:
    first = subject_of(wide, tmp_path)
    found = LocalJudge(first).prefers_first([*PAIRS, PAIRS[0]])
    assert found[0] == found[3]
    assert (first.computed, first.cached, first.bench.loadings) == (3, 0, 1)
    again = subject_of(replace(wide, label="other"), tmp_path)
    assert LocalJudge(again).prefers_first([*PAIRS, PAIRS[0]]) == found
    assert (again.computed, again.cached, again.bench.loadings) == (0, 3, 0)


def test_nothing_is_asked_where_there_are_no_pairs(wide: Artifact, tmp_path: Path) -> None:
    subject = subject_of(wide, tmp_path)
    assert LocalJudge(subject).prefers_first([]) == []
    assert subject.bench.loadings == 0


def test_questions_longer_than_the_context_have_no_verdict_and_this_is_said(
    wide: Artifact, tiny_model: Path, tmp_path: Path
) -> None:
    """With the letter itself the longest question that can be read has as many tokens as there are positions."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sizes = [
        len(tokenizer.apply_chat_template([{"role": "user", "content": pair.question}], add_generation_prompt=True,
                                          return_dict=False))
        for pair in PAIRS
    ]  # fmt: skip
    longest = max(sizes)
    notes: list[str] = []
    for positions, fits in ((longest, [size < longest for size in sizes]), (longest + 1, [True] * 3)):
        folder = with_positions(tiny_model, tmp_path / str(positions), positions)
        narrow = artifact(Kind.MODEL, folder, label="judge")
        found = LocalJudge(subject_of(narrow, tmp_path / f"of{positions}"), note=notes.append).prefers_first(PAIRS)
        assert [value is not None for value in found] == fits
        whole = LocalJudge(subject_of(wide, tmp_path / "whole")).prefers_first(PAIRS)
        assert [value for value in found if value is not None] == pytest.approx(
            [value for value, fit in zip(whole, fits, strict=True) if fit], rel=1e-4
        )
    [note] = notes
    assert f"judge: 1 of 3 questions have no verdict: with the reply they are longer than the {longest} tokens" in note


def test_a_model_without_a_chat_template_is_refused(wide: Artifact, tmp_path: Path) -> None:
    subject = subject_of(wide, tmp_path)
    subject.tokenizer.chat_template = None
    with pytest.raises(UsageError, match="has no chat template to ask it with"):
        LocalJudge(subject)


def word_tokenizer(source: Path, folder: Path, words: list[str]) -> Artifact:
    """The tiny model with another tokenizer: ``words``, each one token, and nothing else."""
    shutil.copytree(source, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    vocabulary = {word: place for place, word in enumerate(["<unk>", "</s>", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split("\u2581", "isolated"),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(folder)
    return artifact(Kind.MODEL, folder, label="judge")


def test_letters_that_begin_with_the_same_token_are_told_apart_by_the_next(wide: Artifact, tmp_path: Path) -> None:
    """As where a tokenizer writes a word as a mark of its beginning and the letter."""
    judge_model = word_tokenizer(wide.path, tmp_path / "marks", ["\u2581", "A", "B", "the", "cat"])
    subject = subject_of(judge_model, tmp_path)
    assert subject.tokenizer("A", add_special_tokens=False).input_ids == [2, 3]
    own = AutoModelForCausalLM.from_pretrained(judge_model.path)
    found = LocalJudge(subject).prefers_first(PAIRS[:1])
    assert found == pytest.approx([expected(own, subject.tokenizer, PAIRS[0], (3, 4), [2])], rel=1e-4)


def test_a_tokenizer_that_does_not_know_the_letters_is_refused(wide: Artifact, tmp_path: Path) -> None:
    judge_model = word_tokenizer(wide.path, tmp_path / "wordless", ["the", "cat"])
    with pytest.raises(UsageError, match="has no tokens for the letters A and B"):
        LocalJudge(subject_of(judge_model, tmp_path))


def test_what_a_judge_is_compared_by_is_its_contents(wide: Artifact, tmp_path: Path) -> None:
    lora = artifact(Kind.MODEL, write_adapter(tmp_path / "lora", wide), ref="stages/sft/x/model", base=wide)
    judge = LocalJudge(subject_of(lora, tmp_path))
    assert judge.who == "stages/sft/x/model"
    assert judge.identity == f"{lora.digest} on {wide.digest}"
    assert LocalJudge(subject_of(wide, tmp_path)).identity == wide.digest


def test_memory_that_runs_out_halves_the_batches(
    wide: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LocalJudge(subject_of(wide, tmp_path / "roomy")).prefers_first(PAIRS)
    notes: list[str] = []
    subject = subject_of(wide, tmp_path / "tight", batch_size=8, note=notes.append)
    backbone = subject.model().base_model
    forward = backbone.forward

    def small(*args: Any, **options: Any) -> Any:
        if len(options["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return forward(*args, **options)

    monkeypatch.setattr(backbone, "forward", small)
    assert LocalJudge(subject).prefers_first(PAIRS) == pytest.approx(whole, rel=1e-4)
    assert notes == ["judge: out of memory; 1 rows at a time from here on"]
