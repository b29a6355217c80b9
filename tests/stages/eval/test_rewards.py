"""Scores against `RewardModel.score_exchanges` on all rows at once, and transformers' own forward of one row."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.models.heads import load_head, random_head, save_head
from ftcli.models.load import load_tokenizer
from ftcli.rl.reward_model import load_reward_model
from ftcli.rl.sequences import Exchange
from ftcli.stages.eval.bench import Bench
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.outcome import Answer
from ftcli.stages.eval.rewards import RewardScorer, check_reward, trained_against
from ftcli.stages.eval.subject import Subject
from tests.conftest import artifact
from tests.stages.eval.test_subject import write_adapter
from tests.tiny import write_tiny_model

CPU = torch.device("cpu")
PROMPTS = [[1, 40, 41], [1, 50], [1, 60, 61, 62, 63], [1, 50]]
ANSWERS = [Answer("", ids, "stop") for ids in ([42, 43, 2], [51, 2], [64], [52, 53, 54, 2])]
EXCHANGES = [Exchange(prompt, answer.ids) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model, label="base")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> Artifact:
    """A reward model as an adapter with a head."""
    folder = write_adapter(tmp_path_factory.mktemp("reward") / "adapter", base, seed=3)
    save_head(folder, random_head(64, seed=1))
    return artifact(Kind.REWARD, folder, base=base)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> Artifact:
    """A reward model as a whole model with a head, with the tokenizer of ``base`` and other weights."""
    folder = write_tiny_model(tmp_path_factory.mktemp("reward") / "full", seed=5)
    for path in base.path.glob("*token*"):
        shutil.copy(path, folder)
    save_head(folder, random_head(64, seed=2))
    return artifact(Kind.REWARD, folder)


def subject_of(model: Artifact, folder: Path, **options: Any) -> Subject:
    return Subject(model, Bench(torch.float32, CPU), Cache(folder / "eval.sqlite"), **options)


@pytest.mark.parametrize("kind", ["adapter", "full"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_are_those_of_the_reward_model(
    kind: str, batch_size: int, base: Artifact, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    reward: Artifact = request.getfixturevalue(kind)
    check_reward(reward, [base])
    subject = subject_of(base, tmp_path)
    found = RewardScorer(reward, subject.bench, batch_size).scores(subject, PROMPTS, ANSWERS)
    pad_id = int(subject.tokenizer.pad_token_id)
    expected = load_reward_model(reward, torch.float32, CPU, pad_id).score_exchanges(EXCHANGES)
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(set(found)) == 4


def test_a_whole_reward_models_score_is_its_head_at_the_last_token(
    base: Artifact, full: Artifact, tmp_path: Path
) -> None:
    subject = subject_of(base, tmp_path)
    found = RewardScorer(full, subject.bench, 2).scores(subject, PROMPTS, ANSWERS)
    model, head = AutoModelForCausalLM.from_pretrained(full.path), load_head(full.path)
    for score, one in zip(found, EXCHANGES, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([one.prompt + one.response]), output_hidden_states=True).hidden_states
        assert score == pytest.approx(float(states[-1][0, -1] @ head.weight[0] + head.bias), abs=1e-5)


def test_a_second_evaluation_computes_and_loads_nothing(
    base: Artifact, adapter: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = subject_of(base, tmp_path)
    found = RewardScorer(adapter, first.bench, 2).scores(first, PROMPTS, ANSWERS)
    assert (first.computed, first.cached) == (4, 0)
    again = subject_of(base, tmp_path)
    again.model()
    scorer = RewardScorer(adapter, again.bench, 2)
    monkeypatch.setattr("ftcli.stages.eval.rewards.load_reward_model", None)
    assert scorer.scores(again, PROMPTS, ANSWERS) == found
    assert (again.computed, again.cached) == (0, 4)
    again.model()
    assert again.bench.loadings == 1, "it was not cleared either"


def test_another_reward_model_or_answer_is_scored_anew(
    base: Artifact, adapter: Artifact, full: Artifact, tmp_path: Path
) -> None:
    subject = subject_of(base, tmp_path)
    scorer = RewardScorer(adapter, subject.bench, 2)
    scorer.scores(subject, PROMPTS, ANSWERS)
    RewardScorer(full, subject.bench, 2).scores(subject, PROMPTS, ANSWERS)
    assert subject.computed == 8
    scorer.scores(subject, PROMPTS[:1], [Answer("", [42, 44, 2], "stop")])
    assert subject.computed == 9


def test_no_answers_need_no_reward_model(base: Artifact, adapter: Artifact, tmp_path: Path) -> None:
    subject = subject_of(base, tmp_path)
    assert RewardScorer(adapter, subject.bench, 2).scores(subject, [], []) == []
    assert subject.bench.loadings == 0


def test_memory_that_runs_out_halves_the_batches(base: Artifact, adapter: Artifact, tmp_path: Path) -> None:
    expected = RewardScorer(adapter, Bench(torch.float32, CPU), 8).scores(
        subject_of(base, tmp_path / "roomy"), PROMPTS, ANSWERS
    )
    notes: list[str] = []
    subject = subject_of(base, tmp_path / "tight", note=notes.append)
    scorer = RewardScorer(adapter, subject.bench, 8)
    sizes: list[int] = []

    def refuse_many(module: Any, args: Any, options: dict[str, Any]) -> None:
        sizes.append(len(options["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    scorer._model.model.get_base_model().model.register_forward_pre_hook(refuse_many, with_kwargs=True)
    assert scorer.scores(subject, PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert notes[-1] == "base: out of memory; 1 rows at a time from here on"


def test_what_is_no_reward_model_is_refused(base: Artifact) -> None:
    with pytest.raises(UsageError, match=r"no head\.safetensors, so this is no reward model"):
        check_reward(replace(base, kind=Kind.REWARD), [base])


def test_an_adapter_without_its_base_is_refused(base: Artifact, adapter: Artifact) -> None:
    with pytest.raises(UsageError, match="does not say which base model it is an adapter of"):
        check_reward(replace(adapter, base=None), [base])


@pytest.mark.parametrize("change", ["vocabulary", "template"])
def test_a_reward_model_that_reads_other_tokens_is_refused(
    change: str, base: Artifact, adapter: Artifact, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(base.path, folder)
    tokenizer = load_tokenizer(folder)
    if change == "template":
        tokenizer.chat_template = "{{ messages }}"
    else:
        tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    other = artifact(Kind.MODEL, folder, label="other")
    with pytest.raises(UsageError, match=r"is built on another base than other .*it reads other tokens"):
        check_reward(adapter, [base, other])


def made(**inputs: Any) -> dict[str, Any]:
    return {"stage": "x", "inputs": inputs}


def test_a_policy_is_known_by_its_lineage_to_have_been_trained_on_a_reward_model(
    base: Artifact, adapter: Artifact
) -> None:
    """Directly, through a model that it was trained from, or by another name of the input; not by having the same base."""
    own = {"ref": "stages/reward/0123456789ab/reward", "kind": "reward", "digest": adapter.digest}
    other = {**own, "digest": "sha256:other"}
    start = {"ref": base.ref, "kind": "model", "digest": base.digest}
    ppo = replace(base, made={"stages/ppo/1": made(model=[start], reward=[own])})
    assert trained_against(ppo, adapter)
    assert trained_against(replace(base, made={"stages/dpo/2": made(model=[start]), **ppo.made}), adapter)
    assert trained_against(replace(base, made={"stages/ppo/3": made(second_reward=[other, own])}), adapter)
    assert not trained_against(replace(base, made={"stages/ppo/4": made(model=[start], reward=[other])}), adapter)
    assert not trained_against(base, adapter)
