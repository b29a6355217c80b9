"""Every setting does what it says, on a tiny model: adapters' kinds, mixtures, noise, schedules, optimizers, trackers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, get_scheduler

from ftcli.core.errors import BadData, UsageError
from ftcli.core.events import Event
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.models.generate import generate
from ftcli.models.load import load_model
from ftcli.stages.sft.stage import LORA, QLORA
from tests.conftest import artifact, run_stage, write_data
from tests.stages.sft.test_train import SETTINGS, answer_nll, load_plain, losses, metrics, output
from tests.stages.sft.test_train import inputs as inputs
from tests.tiny import messages_row

CPU = torch.device("cpu")


def notes_of(folder: Path, stage: Any, inputs: dict[str, Any], **settings: Any) -> tuple[Context[Any], str]:
    notes: list[str] = []

    def listen(event: Event) -> None:
        if event["event"] == "note":
            notes.append(event["text"])

    return run_stage(stage, folder, inputs, sink=listen, **{**SETTINGS, **settings}), "\n".join(notes)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"use_rslora": True, "init_lora_weights": "pissa"},
        {"lora_modules_to_save": ("embed_tokens",)},
        {"lora_target_modules": ("q_proj", "v_proj"), "lora_modules_to_save": ("lm_head",)},
    ],
    ids=str,
)
def test_every_kind_of_adapter_learns_and_is_read_back_by_peft(
    settings: dict[str, Any], inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    ctx = run_stage(LORA, tmp_path, inputs, precision="bf16", lora_r=4, **SETTINGS, **settings)
    found = [line["val/loss"] for line in metrics(ctx) if "val/loss" in line]
    assert losses(ctx)[-1] < losses(ctx)[0] - 0.1
    tokenizer = AutoTokenizer.from_pretrained(ctx.out / "model")
    model = load_plain(ctx.out / "model", inputs["model"].path)
    parts = [answer_nll(model, tokenizer, messages_row(index)) for index in range(24, 32)]  # the validation rows
    mean = sum(loss * count for loss, count in parts) / sum(count for _, count in parts)
    assert mean == pytest.approx(found[-1], rel=0.02)  # computed in bfloat16 then, in float32 now
    answers = generate(
        load_model(output(ctx, inputs), torch.float32, CPU),
        [[1, 5, 9]],
        ["a"],
        stop_ids=frozenset([2]),
        pad_id=2,
        max_new_tokens=3,
        temperature=0.0,
    )
    assert len(answers[0].ids) > 0


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"init_lora_weights": "loftq"}], ids=str)
def test_qlora_takes_the_kinds_that_go_with_4_bits(
    settings: dict[str, Any], inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    ctx = run_stage(QLORA, tmp_path, inputs, lora_r=4, **SETTINGS, **settings)
    assert losses(ctx)[-1] < losses(ctx)[0] - 0.1
    load_model(output(ctx, inputs), torch.float32, CPU)


def test_loftq_starts_nearer_to_the_base_than_plain_4_bits(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """The same first loss as the base's own would be, but for what the rank cannot hold."""
    settings = {**SETTINGS, "max_steps": 1, "precision": "fp32", "eval_rows": 0}
    exact = losses(run_stage(LORA, tmp_path / "exact", inputs, **settings))[0]
    plain = losses(run_stage(QLORA, tmp_path / "plain", inputs, **settings))[0]
    loftq = losses(run_stage(QLORA, tmp_path / "loftq", inputs, lora_r=32, init_lora_weights="loftq", **settings))[0]
    assert abs(loftq - exact) < abs(plain - exact)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"init_lora_weights": "pissa"}], ids=str)
def test_these_adapters_resume_as_if_unbroken(
    settings: dict[str, Any], inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    from tests.stages.sft.test_survival import stopped_after

    settings = {**SETTINGS, "precision": "fp32", "lora_r": 4, **settings}
    stopped_after(3, LORA, tmp_path / "stopped", inputs, **settings)
    whole = run_stage(LORA, tmp_path / "whole", inputs, **settings)
    resumed = run_stage(LORA, tmp_path / "stopped", inputs, **settings)
    assert metrics(resumed) == metrics(whole)
    assert output(resumed, inputs).digest == output(whole, inputs).digest


def test_the_trainable_share_is_said_and_recorded(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ctx, notes = notes_of(tmp_path, LORA, inputs, lora_r=2, max_steps=1)
    # As in test_the_facts_count_parameters_tokens_and_rows: 4,096 of 99,456 + 4,096
    assert "training 4,096 of 103,552 weights (3.96%), 1 in 25" in notes
    assert (
        "micro-batches of 8 rows, attention packed, optim adamw_torch_fused; without gradient_checkpointing (no GPU)"
        in notes
    )
    assert ctx.events.summary["reasons"]["attention"] == "no padding"
    facts = ctx.events.summary
    assert (facts["micro_batch_size"], facts["attention"], facts["use_liger_kernel"]) == (8, "packed", False)


@pytest.fixture
def two(inputs: dict[str, Artifact], tmp_path: Path) -> dict[str, Any]:
    """Two data inputs: 20 rows and 4."""
    small = write_data(tmp_path / "small", lambda index: messages_row(index + 100), 4, 2, 0)
    large = write_data(tmp_path / "large", messages_row, 20, 3, 0)
    data = tuple(artifact(Kind.DATA, path, label=path.name) for path in (large, small))
    return {**inputs, "data": data}


def test_several_data_inputs_are_one(two: dict[str, Any], tmp_path: Path) -> None:
    ctx = run_stage(LORA, tmp_path, two, **{**SETTINGS, "max_steps": None})
    assert ctx.events.summary["rows"] == 24
    assert ctx.events.summary["validation_rows"] == 5
    assert ctx.events.summary["steps"] == 3


def test_weights_decide_how_often_a_row_is_seen(
    two: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    class Watching(sys.modules["ftcli.stages.sft.train"].AnswerTrainer):  # type: ignore[name-defined,misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if model.training:
                seen.extend(inputs["input_ids"].tolist())
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr("ftcli.stages.sft.train.AnswerTrainer", Watching)
    settings = {**SETTINGS, "max_steps": 4, "dataset_weights": {"large": 1, "small": 1}}
    run_stage(LORA, tmp_path, two, **settings)
    counts: dict[tuple[int, ...], int] = {}
    for row in seen:
        counts[tuple(row)] = counts.get(tuple(row), 0) + 1
    assert len(seen) == 32
    assert sorted(counts.values())[-4:] == [4, 4, 4, 4]  # sixteen turns for the four rows of the small input


def test_weights_must_name_the_data_inputs(two: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dataset_weights are for large, little, and the data inputs are large, small"):
        run_stage(LORA, tmp_path, two, dataset_weights={"large": 1, "little": 1}, **SETTINGS)


def test_an_input_without_train_rows_is_named(two: dict[str, Any], tmp_path: Path) -> None:
    empty = artifact(Kind.DATA, write_data(tmp_path / "empty", messages_row, 0, 3, 0), label="empty")
    with pytest.raises(BadData, match=r"/empty: no train rows"):
        run_stage(LORA, tmp_path, {**two, "data": (*two["data"], empty)}, **SETTINGS)


def test_noise_is_for_training_only(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "precision": "fp32",
        "max_steps": 1,
    }  # at rate 0: the first step of a linear schedule is not
    settings = {**settings, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 1}
    plain = run_stage(LORA, tmp_path / "plain", inputs, **settings)
    noisy = run_stage(LORA, tmp_path / "noisy", inputs, neftune_noise_alpha=20.0, **settings)
    assert losses(noisy) != losses(plain)
    assert [line["val/loss"] for line in metrics(noisy) if "val/loss" in line] == [
        line["val/loss"] for line in metrics(plain) if "val/loss" in line
    ]


SCHEDULES: list[tuple[str, dict[str, float]]] = [
    ("linear", {}),
    ("cosine", {"num_cycles": 1.0}),
    ("cosine_with_restarts", {"num_cycles": 2}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("polynomial", {"power": 2.0}),
    ("inverse_sqrt", {"timescale": 4}),
    ("warmup_stable_decay", {"num_decay_steps": 2}),
    ("constant", {}),
    ("constant_with_warmup", {}),
]


@pytest.mark.parametrize(("name", "keys"), SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_the_rate_follows_the_schedule_of_transformers(
    name: str, keys: dict[str, float], inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    warmup = 0 if name == "constant" else 2
    settings = {**SETTINGS, "eval_rows": 0, "lr_scheduler_type": name, "warmup_steps": warmup}
    ctx = run_stage(LORA, tmp_path, inputs, lr_scheduler_kwargs=keys or None, **settings)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=SETTINGS["learning_rate"])
    schedule = get_scheduler(name, optimizer, warmup, 6, keys)
    wanted = []
    for _ in range(6):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [line["train/lr"] for line in metrics(ctx)] == pytest.approx(wanted)


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor"])
def test_the_optimizer_can_be_set(optim: str, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ctx = run_stage(LORA, tmp_path, inputs, optim=optim, **SETTINGS)
    assert ctx.events.summary["optim"] == optim
    assert losses(ctx)[-1] < losses(ctx)[0]


def test_a_paged_optimizer_needs_a_gpu(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no GPU"):
        run_stage(LORA, tmp_path, inputs, optim="paged_adamw_8bit", **SETTINGS)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_implementation_changes_nothing(
    attention: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    settings = {**SETTINGS, "precision": "fp32", "max_steps": 3}
    packed = metrics(run_stage(LORA, tmp_path / "packed", inputs, **settings))
    other = run_stage(LORA, tmp_path / "other", inputs, attn_implementation=attention, **settings)
    assert other.events.summary["attention"] == attention
    for ours, theirs in zip(metrics(other), packed, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(
    ("too_long", "rows", "dropped"), [("truncate", 24, 0), ("truncate_left", 24, 0), ("reject", 12, 12)]
)
def test_what_becomes_of_long_rows_is_chosen_and_counted(
    too_long: str, rows: int, dropped: int, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    def row(index: int) -> dict[str, Any]:
        made = messages_row(index)
        if index % 2:
            made["messages"][1]["content"] = "cat " * 60  # type: ignore[index]
        return made

    data = artifact(Kind.DATA, write_data(tmp_path / "data", row, 24, 2, 0))
    settings = {"too_long": too_long, "max_length": 40, "max_steps": 1}
    ctx, notes = notes_of(tmp_path, LORA, {**inputs, "data": data}, **settings)
    facts = ctx.events.summary
    assert (facts["rows"], facts["rows_dropped"], facts["rows_truncated"]) == (rows, dropped, 12 - dropped)
    assert 0.3 < facts["labels_lost_share"] < 1
    assert f"{facts['labels_lost_share']:.1%} of answer tokens lost" in notes
    with pytest.raises(BadData, match="40"):
        run_stage(LORA, tmp_path / "error", {**inputs, "data": data}, **{**SETTINGS, **settings, "too_long": "error"})


def test_a_template_that_never_ends_a_turn_stops_the_stage(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(inputs["model"].path, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    with pytest.raises(BadData, match="the model's chat template and these rows cannot be trained with") as raised:
        run_stage(LORA, tmp_path, {**inputs, "model": artifact(Kind.MODEL, folder)}, **SETTINGS)
    assert "missing_end_of_turn" in raised.value.message
    assert "eos_token" in raised.value.hint or "chat_template" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [("wandbb", "no tracker is named wandbb"), ("comet_ml", "comet_ml is not installed")],
)
def test_a_tracker_that_cannot_be_is_an_error_before_training(
    name: str, message: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"report_to: {message}"):
        run_stage(LORA, tmp_path, inputs, report_to=(name,), **SETTINGS)


def test_a_tracker_gets_the_losses(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    ctx = run_stage(LORA, tmp_path, inputs, report_to=("tensorboard",), **SETTINGS)
    (file,) = (ctx.out / "tracking").rglob("events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert [item.value for item in events.Scalars("train/loss")] == pytest.approx(losses(ctx), rel=1e-3)
    assert len(events.Scalars("eval/loss")) == 1


def test_trackers_leave_the_environment_as_it_was(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """Else a second stage in the same process would write into the first one's folder."""
    before = dict(os.environ)
    ctx = run_stage(LORA, tmp_path, inputs, report_to=("tensorboard",), **{**SETTINGS, "max_steps": 1})
    assert dict(os.environ) == before
    assert list((ctx.out / "tracking").rglob("events.*"))


def test_an_adapter_with_modules_trained_whole_is_trained_further(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "precision": "bf16"}
    first = run_stage(LORA, tmp_path / "first", inputs, lora_modules_to_save=("embed_tokens",), **settings)
    second = run_stage(LORA, tmp_path / "second", {**inputs, "model": output(first, inputs)}, **settings)
    assert losses(second)[0] < losses(first)[0] - 0.1
    key = "base_model.model.model.embed_tokens.weight"
    weights = [load_file(ctx.out / "model" / "adapter_model.safetensors")[key] for ctx in (first, second)]
    assert weights[1].dtype is torch.float32
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"lora_modules_to_save": ("embed_tokens",)},
        {"init_lora_weights": "pissa"},
    ],
    ids=str,
)
def test_an_adapter_cannot_become_one_of_another_kind(
    settings: dict[str, Any], inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    first = run_stage(LORA, tmp_path / "first", inputs, **{**SETTINGS, "max_steps": 1})
    with pytest.raises(UsageError, match=f"is an adapter already, which cannot take {next(iter(settings))}"):
        run_stage(LORA, tmp_path / "second", {**inputs, "model": output(first, inputs)}, **SETTINGS, **settings)


def test_metrics_tell_tokens_and_memory(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ctx = run_stage(LORA, tmp_path, inputs, **SETTINGS)
    lines = [json.loads(line) for line in (ctx.scratch / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "train/lr" in line]
    assert steps[-1]["train/tokens"] == ctx.events.summary["tokens"]
    assert [line["train/tokens"] for line in steps] == sorted(line["train/tokens"] for line in steps)
    assert steps[-1]["perf/peak_memory_bytes"] > 100 * 2**20
    assert "perf/mfu" not in steps[-1]  # no GPU whose peak is known


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_model_learns_the_same(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "precision": "fp32", "max_steps": 3}
    plain = losses(run_stage(LORA, tmp_path / "plain", inputs, **settings))
    ctx = run_stage(LORA, tmp_path / "compiled", inputs, torch_compile=True, **settings)
    assert losses(ctx) == pytest.approx(plain, rel=1e-3)
    assert (ctx.events.summary["torch_compile"], ctx.events.summary["attention"]) == (True, "sdpa")
