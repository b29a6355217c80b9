"""dpo end to end on a tiny model; what it writes is read back by transformers and peft alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftcli.core.errors import BadData, UsageError
from ftcli.core.events import Event
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.data.rows import read_jsonl
from ftcli.stages.dpo.stage import DPO
from ftcli.stages.eval.stage import EVAL
from tests.conftest import artifact, run_stage, write_data
from tests.stages.dpo.planted import load_plain, margins, planted_row
from tests.stages.reward.adapters import write_adapter
from tests.tiny import messages_row

SETTINGS: dict[str, Any] = {"learning_rate": 3e-3, "global_batch_size": 8, "max_steps": 3, "precision": "fp32"}


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model)


@pytest.fixture(scope="module")
def policy(base: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An adapter that was trained before, with dropout."""
    return write_adapter(tmp_path_factory.mktemp("policy") / "adapter", base, dropout=0.1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact(Kind.DATA, write_data(tmp_path_factory.mktemp("data") / "pairs", planted_row, 32, 16, 0))


def data(folder: Path, row: Any = planted_row, train: int = 4, validation: int = 4, test: int = 0) -> Artifact:
    return artifact(Kind.DATA, write_data(folder, row, train, validation, test))


def metrics(ctx: Context[Any]) -> list[dict[str, Any]]:
    lines = read_jsonl(ctx.scratch / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in lines]


def steps(ctx: Context[Any]) -> list[dict[str, Any]]:
    return [line for line in metrics(ctx) if "train/loss" in line]


@pytest.mark.parametrize("method", ["auto", "qlora", "full"])
def test_a_planted_preference_is_learnt(method: str, base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_steps": 12, "learning_rate": 1e-2 if method != "full" else 3e-3}
    ctx = run_stage(DPO, tmp_path, {"model": base, "data": pairs}, method=method, **settings)
    facts = ctx.events.summary
    assert facts["val/accuracy"] > 0.9
    assert facts["val/longer_wins_accuracy"] == 0.5
    assert facts["val/margin"] > 0.1
    assert facts["val/accuracy_low"] > 0.5
    first, *_, last = [line for line in metrics(ctx) if "val/loss" in line]
    assert first["step"] == 0
    assert first["val/rewards/accuracies"] == 0.5
    assert first["val/loss"] == pytest.approx(0.6931472)
    assert last["val/loss"] == facts["val/loss"] < 0.6


def test_the_first_loss_is_log_2_and_metrics_bear_trls_names(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    ctx = run_stage(DPO, tmp_path, {"model": base, "data": pairs}, **SETTINGS)
    found = steps(ctx)
    assert len(found) == 3
    assert found[0]["train/loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert [found[0][f"train/rewards/{name}"] for name in ("chosen", "rejected", "margins")] == [0.0, 0.0, 0.0]
    assert found[2]["train/rewards/margins"] == pytest.approx(
        found[2]["train/rewards/chosen"] - found[2]["train/rewards/rejected"], abs=1e-6
    )
    assert found[2]["train/rewards/accuracies"] > 0.5


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge"])
@pytest.mark.parametrize("start", ["base", "policy"])
def test_the_saved_model_has_the_margins_that_were_reported(
    start: str, loss_type: str, base: Artifact, policy: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    source = base if start == "base" else policy
    settings = {**SETTINGS, "loss_type": loss_type, "beta": 0.2}
    ctx = run_stage(DPO, tmp_path, {"model": source, "data": pairs}, **settings)
    rows = list(read_jsonl(pairs.path / "validation.jsonl"))
    reference = load_plain(source.path, base.path)
    expected = margins(ctx.out / "model", reference, base.path, rows, 0.2)
    assert ctx.events.summary["val/margin"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    assert abs(ctx.events.summary["val/margin"]) > 1e-3
    assert ctx.events.summary["val/accuracy"] == sum(margin > 0 for margin in expected) / len(expected)


def test_an_adapter_is_trained_further_and_held_to_itself(
    base: Artifact, policy: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    ctx = run_stage(DPO, tmp_path, {"model": policy, "data": pairs}, **SETTINGS)
    assert steps(ctx)[0]["train/loss"] == pytest.approx(0.6931472, abs=1e-6)  # the bare base would be far away
    folder = ctx.out / "model"
    before, after = (load_file(path / "adapter_model.safetensors") for path in (policy.path, folder))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert json.loads((folder / "base_model.json").read_text())["digest"] == base.digest
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize("method", ["auto", "full"])
def test_the_micro_batch_size_changes_nothing(method: str, base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    inputs = {"model": base, "data": pairs}
    runs = [
        run_stage(DPO, tmp_path / str(micro), inputs, method=method, micro_batch_size=micro, **SETTINGS)
        for micro in (8, 4, 1)
    ]
    for other in runs[1:]:
        for ours, theirs in zip(metrics(runs[0]), metrics(other), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_gradient_checkpointing_changes_nothing(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    inputs = {"model": base, "data": pairs}
    plain = run_stage(DPO, tmp_path / "plain", inputs, **SETTINGS)
    checkpointed = run_stage(DPO, tmp_path / "checkpointed", inputs, gradient_checkpointing=True, **SETTINGS)
    for ours, theirs in zip(metrics(plain), metrics(checkpointed), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_the_default_learning_rate_depends_on_what_is_trained(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    found = {}
    for method in ("lora", "full"):
        settings = {"method": method, "max_steps": 1, "global_batch_size": 2, "precision": "fp32"}
        ctx = run_stage(DPO, tmp_path / method, {"model": base, "data": pairs}, **settings)
        found[method] = steps(ctx)[0]["train/lr"]
    assert found == {"lora": 5e-6, "full": 5e-7}


def test_what_it_makes_is_a_model_like_any_other(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    ctx = run_stage(DPO, tmp_path / "dpo", {"model": base, "data": pairs}, **SETTINGS)
    made = artifact(Kind.MODEL, ctx.out / "model", base=base, label="dpo")
    rows = artifact(Kind.DATA, write_data(tmp_path / "chat", messages_row, 1, 1, 2))
    found = run_stage(
        EVAL,
        tmp_path / "eval",
        {"models": (made,), "data": rows},
        metrics=("perplexity",),
        resamples=100,
        precision="fp32",
    )
    result = json.loads((found.out / "report" / "metrics.json").read_text())
    assert list(result["models"]) == ["dpo"]
    further = run_stage(DPO, tmp_path / "further", {"model": made, "data": pairs}, **{**SETTINGS, "max_steps": 1})
    assert steps(further)[0]["train/loss"] == pytest.approx(0.6931472, abs=1e-6)


def ranking_row(index: int) -> dict[str, Any]:
    row = planted_row(index)
    texts = [row["chosen"][0]["content"], row["rejected"][0]["content"], "the the", "file file"]
    candidates = [{"content": text, "rank": rank} for text, rank in zip(texts, (1, 2, 3, 3), strict=True)]
    return {"id": row["id"], "prompt": row["prompt"], "candidates": candidates, "meta": {}}


def test_rankings_give_all_their_pairs_but_ties(base: Artifact, tmp_path: Path) -> None:
    notes: list[str] = []
    rows = data(tmp_path / "data", ranking_row)
    sink = lambda event: notes.append(event["text"]) if event["event"] == "note" else None  # noqa: E731
    ctx = run_stage(DPO, tmp_path, {"model": base, "data": rows}, sink=sink, **SETTINGS)
    facts = ctx.events.summary
    assert (facts["train/pairs"], facts["train/prompts"], facts["train/ties_dropped"]) == (20, 4, 4)
    assert (facts["val/pairs"], facts["val/prompts"]) == (20, 4)
    assert "train: 20 pairs of 4 prompts; 4 ties dropped" in notes


def test_progress_shows_accuracy_and_margin(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    shown: list[Event] = []
    run_stage(DPO, tmp_path, {"model": base, "data": pairs}, sink=shown.append, **SETTINGS)
    bars = [event for event in shown if event["event"] == "progress"]
    assert {event["task"] for event in bars} == {"reference", "reference, held-out", "train", "judge"}
    last = [event for event in bars if event["task"] == "train"][-1]
    assert (last["done"], last["total"]) == (3, 3)
    assert {"loss", "accuracy", "margin", "tokens_per_s"} <= set(last["shown"])


# ---- what users get wrong


def test_rows_of_another_type_are_refused(base: Artifact, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="a messages row, preference or ranking needed"):
        run_stage(DPO, tmp_path, {"model": base, "data": artifact(Kind.DATA, tiny_data)})


def test_empty_splits_are_refused(base: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no train rows"):
        run_stage(DPO, tmp_path / "a", {"model": base, "data": data(tmp_path / "no train", train=0)})
    with pytest.raises(BadData, match="no validation rows and no test rows"):
        run_stage(DPO, tmp_path / "b", {"model": base, "data": data(tmp_path / "no held-out", validation=0)})


def test_a_prompt_in_both_splits_is_not_trained_on(base: Artifact, tmp_path: Path) -> None:
    rows = data(tmp_path / "some", lambda index: planted_row(index % 6), train=5, validation=2)  # row 0 is held out too
    ctx = run_stage(DPO, tmp_path / "a", {"model": base, "data": rows}, **{**SETTINGS, "max_steps": 1})
    assert ctx.events.summary["train/asked_in_held_out"] == 1
    assert ctx.events.summary["train/pairs"] == 4
    rows = data(tmp_path / "all", lambda index: planted_row(index % 2), train=2, validation=2)
    with pytest.raises(BadData, match="all prompts of train are in validation too"):
        run_stage(DPO, tmp_path / "b", {"model": base, "data": rows})


def test_when_all_pairs_are_too_long_the_limit_is_named(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"none of the 32 train rows .* 32 overlong") as raised:
        run_stage(DPO, tmp_path, {"model": base, "data": pairs}, max_length=8)
    assert "max_length (now 8)" in raised.value.hint


def test_what_is_cut_or_left_out_is_counted(base: Artifact, tmp_path: Path) -> None:
    def row(index: int) -> dict[str, Any]:
        made = planted_row(index)
        made["prompt"][0]["content"] += " the cat sat on a mat" * (10 * (index % 4 == 0))
        return made

    rows = data(tmp_path / "data", row, train=8, validation=8)
    settings = {**SETTINGS, "max_steps": 1, "max_length": 60}
    cut = run_stage(DPO, tmp_path / "cut", {"model": base, "data": rows}, **settings).events.summary
    assert (cut["train/pairs"], cut["train/truncated_prompts"], cut["train/overlong"]) == (8, 2, 0)
    left = run_stage(
        DPO, tmp_path / "left", {"model": base, "data": rows}, overlong="reject", **settings
    ).events.summary
    assert (left["train/pairs"], left["train/truncated_prompts"], left["train/overlong"]) == (6, 0, 2)


def test_settings_that_an_adapter_cannot_take_are_refused(policy: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot take lora_r 32 \(it has 4\)"):
        run_stage(DPO, tmp_path, {"model": policy, "data": pairs}, lora_r=32)


@pytest.mark.parametrize(("method", "message"), [("full", "all weights of a whole model"), ("qlora", "unrounded")])
def test_methods_that_contradict_an_adapter_are_refused(
    method: str, message: str, policy: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run_stage(DPO, tmp_path, {"model": policy, "data": pairs}, method=method)


def test_an_adapter_on_the_head_is_refused(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "adapter", base)
    path = source.path / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "target_modules": ["lm_head"]}))
    with pytest.raises(UsageError, match="adapts the head"):
        run_stage(DPO, tmp_path, {"model": artifact(Kind.MODEL, source.path, base=base), "data": pairs})
