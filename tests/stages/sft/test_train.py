"""sft, lora and qlora end to end on a tiny model; what they write is read back by transformers and peft alone."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.errors import BadData, Diverged, UsageError
from ftcli.core.stage import Artifact, Context, Kind, Stage
from ftcli.data.rows import read_jsonl, write_jsonl
from ftcli.stages.sft.stage import LORA, QLORA, SFT
from tests.conftest import artifact, run_stage
from tests.tiny import messages_row

ROOT = Path(__file__).parents[3]
STAGES = pytest.mark.parametrize("stage", [SFT, LORA, QLORA], ids=lambda stage: stage.name)
SETTINGS: dict[str, Any] = {"learning_rate": 3e-3, "global_batch_size": 8, "max_steps": 6}


@pytest.fixture
def inputs(tiny_model: Path, tiny_data: Path) -> dict[str, Artifact]:
    return {"model": artifact(Kind.MODEL, tiny_model), "data": artifact(Kind.DATA, tiny_data)}


def metrics(ctx: Context[Any]) -> list[dict[str, float]]:
    """Lines of metrics.jsonl without clocks."""
    lines = read_jsonl(ctx.scratch / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in lines]


def losses(ctx: Context[Any]) -> list[float]:
    return [line["train/loss"] for line in metrics(ctx) if "train/loss" in line]


def output(ctx: Context[Any], inputs: dict[str, Artifact]) -> Artifact:
    folder = ctx.out / "model"
    return artifact(Kind.MODEL, folder, base=inputs["model"] if (folder / "adapter_config.json").exists() else None)


def load_plain(folder: Path, base: Path) -> Any:
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def answer_nll(model: Any, tokenizer: Any, row: dict[str, Any]) -> tuple[float, int]:
    """The loss of transformers on one row whose prompt is not counted, and the number of its labels."""
    whole = tokenizer.apply_chat_template(row["messages"], return_dict=False)[:-1]  # not the line break
    prompt = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False)
    ids = torch.tensor([whole])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        loss = model(input_ids=ids, labels=labels).loss
    return float(loss), len(whole) - len(prompt)


@STAGES
def test_training_lowers_the_loss_of_the_saved_model(
    stage: Stage[Any], inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    ctx = run_stage(stage, tmp_path, inputs, **SETTINGS)
    assert losses(ctx)[-1] < losses(ctx)[0] - 0.1
    base, folder = inputs["model"].path, ctx.out / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = messages_row(1)
    before, _ = answer_nll(AutoModelForCausalLM.from_pretrained(base), tokenizer, row)
    after, _ = answer_nll(load_plain(folder, base), tokenizer, row)
    assert after < before - 0.1


def test_validation_loss_is_the_mean_over_all_labels(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(inputs["data"].path, data)
    rows = [messages_row(index) for index in range(5)]
    rows[2]["messages"][1]["content"] *= 6  # type: ignore[index]  # batches with unequal numbers of labels
    write_jsonl(data / "validation.jsonl", rows)
    ctx = run_stage(
        SFT,
        tmp_path,
        {**inputs, "data": artifact(Kind.DATA, data)},
        precision="fp32",
        micro_batch_size=2,
        **SETTINGS,
    )
    model, tokenizer = load_plain(ctx.out / "model", tmp_path), AutoTokenizer.from_pretrained(ctx.out / "model")
    found = [answer_nll(model, tokenizer, row) for row in rows]
    expected = sum(loss * count for loss, count in found) / sum(count for _, count in found)
    assert ctx.events.summary["val/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stage", [SFT, LORA], ids=lambda stage: stage.name)
def test_the_micro_batch_size_changes_nothing(stage: Stage[Any], inputs: dict[str, Artifact], tmp_path: Path) -> None:
    runs = [
        run_stage(
            stage,
            tmp_path / str(micro),
            inputs,
            precision="fp32",
            micro_batch_size=micro,
            **{**SETTINGS, "max_steps": 3},
        )
        for micro in (8, 4, 1)
    ]
    for other in runs[1:]:
        for ours, theirs in zip(metrics(runs[0]), metrics(other), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)


@STAGES
def test_a_second_run_gives_the_same_bytes(stage: Stage[Any], inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_steps": 2, "eval_steps": 1}
    first, second = (run_stage(stage, tmp_path / name, inputs, **settings) for name in "ab")
    assert metrics(first) == metrics(second)
    assert output(first, inputs).digest == output(second, inputs).digest


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from ftcli.core.stage import Kind
    from ftcli.stages.sft import stage
    from ftcli.training import checkpoints
    from tests.conftest import artifact, run_stage

    saves = 0
    flush = checkpoints.fsync_tree

    def die_in_the_second_save(folder):
        global saves
        saves += 1
        if saves == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(folder)

    checkpoints.fsync_tree = die_in_the_second_save
    model, data, folder, name = sys.argv[1:]
    inputs = {"model": artifact(Kind.MODEL, Path(model)), "data": artifact(Kind.DATA, Path(data))}
    run_stage(getattr(stage, name), Path(folder), inputs, **SETTINGS)
"""


@pytest.mark.parametrize("name", ["SFT", "LORA", "QLORA"])
def test_a_run_killed_while_saving_goes_on_as_if_unbroken(
    name: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    stage = {"SFT": SFT, "LORA": LORA, "QLORA": QLORA}[name]
    settings = {**SETTINGS, "precision": "fp32", "micro_batch_size": 4, "save_steps": 2, "eval_steps": 3}
    if stage is not SFT:
        settings["lora_dropout"] = 0.1  # so that the random state counts
    script = textwrap.dedent(KILLED).replace("SETTINGS", repr(settings))
    paths = [str(inputs["model"].path), str(inputs["data"].path), str(tmp_path / "killed")]
    child = subprocess.run([sys.executable, "-c", script, *paths, name], cwd=ROOT, check=False, timeout=200)
    assert child.returncode == -9
    kept = [path.name for path in (tmp_path / "killed" / "scratch" / "checkpoints").iterdir()]
    assert kept == ["step-2"]
    assert (tmp_path / "killed" / "scratch" / "staging" / "checkpoint-4").is_dir()

    whole = run_stage(stage, tmp_path / "whole", inputs, **settings)
    resumed = run_stage(stage, tmp_path / "killed", inputs, **settings)
    assert metrics(resumed) == metrics(whole)
    assert output(resumed, inputs).digest == output(whole, inputs).digest
    assert resumed.events.summary["tokens"] == whole.events.summary["tokens"]


def test_a_run_killed_after_its_last_step_only_saves(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_steps": 3, "save_steps": 2}
    first = run_stage(LORA, tmp_path, inputs, **settings)
    before, facts = output(first, inputs).digest, first.events.summary
    shutil.rmtree(first.out)
    again = run_stage(LORA, tmp_path, inputs, **settings)
    assert output(again, inputs).digest == before
    assert again.events.summary == facts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_steps": 9},
            "step 4: .* gradient norm nan are not finite, 3 steps in a row; there is no checkpoint yet",
        ),
        ({"max_steps": 1, "weight_decay": 1e30}, "after step 1: validation loss is nan"),
    ],
    ids=["gradient", "validation"],
)
def test_values_that_are_not_finite_stop_the_run(
    settings: dict[str, Any], message: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=message) as raised:
        run_stage(SFT, tmp_path, inputs, learning_rate=1e30, global_batch_size=8, **settings)
    assert "learning_rate" in raised.value.hint
    assert not (tmp_path / "out" / "model").exists()
    found = [line["train/loss"] for line in read_jsonl(tmp_path / "scratch" / "metrics.jsonl")]
    assert math.isfinite(found[0])
    assert found[1:] == [None] * (len(found) - 1)  # JSON has no NaN


def test_sft_saves_a_plain_model_in_the_precision_it_came_in(
    inputs: dict[str, Artifact], tiny_model: Path, tmp_path: Path
) -> None:
    source = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(source)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(source)
    ctx = run_stage(SFT, tmp_path, {**inputs, "model": artifact(Kind.MODEL, source)}, **{**SETTINGS, "max_steps": 1})
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, ctx.out / "model"))
    assert after == before
    assert {weight.dtype for weight in load_file(ctx.out / "model" / "model.safetensors").values()} == {torch.bfloat16}
    names = {path.name for path in (ctx.out / "model").iterdir()}
    assert {"generation_config.json", "tokenizer.json", "chat_template.jinja"} <= names


def test_trained_weights_are_float32_whatever_the_computation(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    for stage in (LORA, QLORA):
        ctx = run_stage(stage, tmp_path / stage.name, inputs, precision="bf16", **{**SETTINGS, "max_steps": 2})
        weights = load_file(ctx.out / "model" / "adapter_model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
        trained = torch.cat([weight.flatten() for name, weight in weights.items() if "lora_B" in name])
        assert not torch.equal(trained, trained.bfloat16().float())  # nor were they bfloat16 on the way


def test_qlora_records_its_base_and_quantisation(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ctx = run_stage(QLORA, tmp_path, inputs, double_quant=False, **{**SETTINGS, "max_steps": 1})
    record = json.loads((ctx.out / "model" / "base_model.json").read_text())
    assert record == {
        "ref": inputs["model"].ref,
        "digest": inputs["model"].digest,
        "quantization": "nf4",
        "double_quant": False,
    }


@pytest.mark.parametrize("stage", [LORA, QLORA], ids=lambda stage: stage.name)
def test_an_adapter_is_trained_further(stage: Stage[Any], inputs: dict[str, Artifact], tmp_path: Path) -> None:
    first = run_stage(LORA, tmp_path / "first", inputs, lora_r=4, lora_target_modules=("q_proj", "v_proj"), **SETTINGS)
    second = run_stage(stage, tmp_path / "second", {**inputs, "model": output(first, inputs)}, **SETTINGS)
    assert losses(second)[0] < losses(first)[0] - 0.1
    config = json.loads((second.out / "model" / "adapter_config.json").read_text())
    assert (config["r"], config["target_modules"]) == (4, ["q_proj", "v_proj"])
    record = json.loads((second.out / "model" / "base_model.json").read_text())
    assert record["digest"] == inputs["model"].digest
    # q_proj 64 -> 64 and v_proj 64 -> 32 in each of two layers: r * (in + out)
    assert second.events.summary["trainable_parameters"] == 2 * 4 * ((64 + 64) + (64 + 32))


def test_an_adapter_cannot_change_its_shape(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    first = run_stage(LORA, tmp_path / "first", inputs, lora_r=4, **{**SETTINGS, "max_steps": 1})
    adapter = {**inputs, "model": output(first, inputs)}
    with pytest.raises(UsageError, match=r"cannot take lora_r 8 \(it has 4\); lora_target_modules"):
        run_stage(LORA, tmp_path / "second", adapter, lora_r=8, lora_target_modules=("q_proj",))


def test_sft_refuses_an_adapter(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    first = run_stage(LORA, tmp_path / "first", inputs, **{**SETTINGS, "max_steps": 1})
    with pytest.raises(UsageError, match="is an adapter; sft trains all weights") as raised:
        run_stage(SFT, tmp_path / "second", {**inputs, "model": output(first, inputs)})
    assert "ftcli lora" in raised.value.hint


@pytest.mark.parametrize(
    ("stage", "trainable", "total"),
    # 397 * 64 embeddings (tied), two layers of 2*64*64 + 2*64*32 + 3*64*128 and two norms of 64, one last norm;
    # LoRA of rank 2 on q, k, v, o, gate, up, down: r * (in + out)
    [
        (SFT, 99456, 99456),
        (LORA, 2 * 2 * (128 + 96 + 96 + 128 + 3 * 192), 99456 + 4096),
        (QLORA, 2 * 2 * (128 + 96 + 96 + 128 + 3 * 192), 99456 + 4096),
    ],
    ids=["sft", "lora", "qlora"],
)
def test_the_facts_count_parameters_tokens_and_rows(
    stage: Stage[Any], trainable: int, total: int, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    rank = {} if stage is SFT else {"lora_r": 2}
    ctx = run_stage(stage, tmp_path, inputs, **{**SETTINGS, "max_steps": 3}, **rank)
    facts = ctx.events.summary
    assert (facts["trainable_parameters"], facts["total_parameters"]) == (trainable, total)
    assert facts["trainable_share"] == trainable / total
    tokenizer = AutoTokenizer.from_pretrained(inputs["model"].path)
    rows = [messages_row(index)["messages"] for index in range(24)]  # three steps of 8 see each row once
    assert facts["tokens"] == sum(len(tokenizer.apply_chat_template(row, return_dict=False)) - 1 for row in rows)
    assert (facts["rows"], facts["validation_rows"]) == (24, 8)
    assert facts["train/loss"] == losses(ctx)[-1]
    assert facts["perf/seconds"] > 0


def test_metrics_can_be_averaged_over_steps(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "precision": "fp32", "max_steps": 4, "eval_rows": 0}
    each = metrics(run_stage(SFT, tmp_path / "each", inputs, **settings))
    pairs = metrics(run_stage(SFT, tmp_path / "pairs", inputs, logging_steps=2, **settings))
    assert [line["step"] for line in pairs] == [2, 4]
    assert pairs[0]["train/lr"] == each[1]["train/lr"]
    low, high = sorted(line["train/loss"] for line in each[:2])
    assert low < pairs[0]["train/loss"] < high


def test_the_learning_rate_follows_its_schedule(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ctx = run_stage(LORA, tmp_path, inputs, **{**SETTINGS, "learning_rate": 0.004, "max_steps": 4}, warmup_steps=0.5)
    rates = [line["train/lr"] for line in metrics(ctx) if "train/lr" in line]
    assert rates == pytest.approx([0.0, 0.002, 0.004, 0.002])


def test_gradient_checkpointing_changes_nothing(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "precision": "fp32", "max_steps": 2}
    plain = run_stage(LORA, tmp_path / "plain", inputs, **settings)
    checkpointed = run_stage(LORA, tmp_path / "checkpointed", inputs, gradient_checkpointing=True, **settings)
    for ours, theirs in zip(metrics(plain), metrics(checkpointed), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_an_empty_train_split_is_bad_data(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(inputs["data"].path, data)
    (data / "train.jsonl").write_text("")
    with pytest.raises(BadData, match="no train rows"):
        run_stage(LORA, tmp_path, {**inputs, "data": artifact(Kind.DATA, data)})


def test_preference_rows_are_bad_data(inputs: dict[str, Artifact], tiny_pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"train.jsonl:1: a preference row, messages needed"):
        run_stage(LORA, tmp_path, {**inputs, "data": artifact(Kind.DATA, tiny_pairs)})


def test_rows_whose_answers_are_all_cut_off_are_bad_data(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no row has a part of its answer within max_length 8") as raised:
        run_stage(LORA, tmp_path, inputs, max_length=8)
    assert "max_length" in raised.value.hint


def test_without_validation_rows_there_is_no_validation_loss(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ctx = run_stage(LORA, tmp_path, inputs, eval_rows=0, **{**SETTINGS, "max_steps": 1})
    assert "val/loss" not in ctx.events.summary
    assert "train/loss" in ctx.events.summary


def test_what_is_cut_is_noted_and_recorded(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(inputs["data"].path, data)
    rows = [messages_row(index) for index in range(8)]
    rows[0]["messages"][1]["content"] *= 20  # type: ignore[index]
    rows[1]["messages"][0]["content"] *= 20  # type: ignore[index]
    write_jsonl(data / "train.jsonl", rows)
    ctx = run_stage(LORA, tmp_path, {**inputs, "data": artifact(Kind.DATA, data)}, max_length=80, max_steps=1)
    facts = ctx.events.summary
    assert (facts["rows"], facts["rows_truncated"], facts["rows_dropped"]) == (7, 1, 1)
    assert facts["labels_lost"] > 0
