"""What may come between a run and its end: a signal, a spoiled step, a full disk, and a validation loss that rises."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from ftcli.core.errors import DiskError, Diverged, Stopped
from ftcli.core.events import Event
from ftcli.core.stage import Artifact, Context, Kind, Stage
from ftcli.core.stop import Stop
from ftcli.data.rows import read_jsonl
from ftcli.stages.sft.config import LoraConfig, SftConfig, leaner
from ftcli.stages.sft.stage import LORA, SFT
from ftcli.training.trainer import AnswerTrainer
from tests.conftest import artifact, run_stage, write_data
from tests.stages.sft.test_train import STAGES, answer_nll, load_plain, losses, metrics, output
from tests.stages.sft.test_train import inputs as inputs
from tests.tiny import messages_row

SETTINGS: dict[str, Any] = {"learning_rate": 3e-3, "global_batch_size": 8, "max_steps": 6, "precision": "fp32"}
RISING: dict[str, Any] = {**SETTINGS, "learning_rate": 0.05, "max_steps": 12, "eval_steps": 2}


def stopped_after(step: int, stage: Stage[Any], folder: Path, inputs: dict[str, Artifact], **settings: Any) -> str:
    """Ask to stop in ``step``; what the stage said."""
    stop = Stop()

    def ask(event: Event) -> None:
        if event.get("task") == "train" and event["done"] == step:
            stop.ask("SIGTERM")

    with pytest.raises(Stopped) as raised:
        run_stage(stage, folder, inputs, sink=ask, stop=stop, **settings)
    assert not (folder / "out" / "model").exists()
    return raised.value.message


@STAGES
def test_a_stopped_run_goes_on_as_if_unbroken(stage: Stage[Any], inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "eval_steps": 3, **({} if stage is SFT else {"lora_dropout": 0.1})}
    message = stopped_after(3, stage, tmp_path / "stopped", inputs, **settings)
    assert message == "stopped by SIGTERM after step 3 of 6, with a checkpoint"
    whole = run_stage(stage, tmp_path / "whole", inputs, **settings)
    resumed = run_stage(stage, tmp_path / "stopped", inputs, **settings)
    assert metrics(resumed) == metrics(whole)
    assert output(resumed, inputs).digest == output(whole, inputs).digest


def test_a_stop_in_the_last_step_comes_too_late_to_stop_anything(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stop = Stop()

    def ask(event: Event) -> None:
        if event.get("done") == 6:
            stop.ask("SIGTERM")

    ctx = run_stage(LORA, tmp_path, inputs, sink=ask, stop=stop, **SETTINGS)
    assert len(losses(ctx)) == 6
    assert (ctx.out / "model").is_dir()


def test_a_stop_before_the_first_step_says_so(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stop = Stop()
    stop.ask("SIGUSR1")
    with pytest.raises(Stopped, match="stopped by SIGUSR1 before the first step"):
        run_stage(LORA, tmp_path, inputs, stop=stop, **SETTINGS)


def spoil(model: Any, steps: Collection[int], trainer_steps: list[int]) -> Any:
    """A hook that makes a gradient infinite in ``steps``; micro-batches are whole steps here."""

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        trainer_steps.append(1)
        return gradient * float("inf") if len(trainer_steps) in steps else gradient

    return next(weight for weight in model.parameters() if weight.requires_grad).register_hook(hook)


class Spoiled(AnswerTrainer):
    steps: frozenset[int] = frozenset()

    def train(self, **options: Any) -> Any:
        spoil(self.model, self.steps, [])
        return super().train(**options)


def run_spoiled(
    steps: Collection[int], inputs: dict[str, Artifact], folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[Context[Any], list[str]]:
    notes: list[str] = []
    monkeypatch.setattr("ftcli.stages.sft.train.AnswerTrainer", Spoiled)
    monkeypatch.setattr(Spoiled, "steps", frozenset(steps))
    sink = lambda event: notes.append(event["text"]) if event["event"] == "note" else None  # noqa: E731
    ctx = run_stage(LORA, folder, inputs, sink=sink, micro_batch_size=8, **{**SETTINGS, **settings})
    return ctx, notes


def test_a_spoiled_step_is_dropped_and_training_goes_on(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, notes = run_spoiled({2, 3, 5}, inputs, tmp_path, monkeypatch)
    lines = [line for line in metrics(ctx) if "train/lr" in line]
    assert [line["train/loss"] is None for line in lines] == [False, True, True, False, True, False]
    assert [line["train/grad_norm"] is None for line in lines] == [False, True, True, False, True, False]
    assert ctx.events.summary["steps_dropped"] == 3
    assert sum("is dropped" in note for note in notes) == 3
    weights = load_plain(ctx.out / "model", inputs["model"].path).state_dict()
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_dropped_step_changes_no_weight(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = run_spoiled(set(), inputs, tmp_path / "one", monkeypatch, max_steps=1, lr_scheduler_type="constant")
    two, _ = run_spoiled({2}, inputs, tmp_path / "two", monkeypatch, max_steps=2, lr_scheduler_type="constant")
    assert output(one, inputs).digest == output(two, inputs).digest


def test_three_spoiled_steps_in_a_row_name_the_last_good_checkpoint(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Diverged, match=r"step 5: .* 3 steps in a row; .* checkpoint is .*checkpoints/step-4") as raised:
        run_spoiled({3, 4, 5}, inputs, tmp_path, monkeypatch, save_steps=2)
    assert raised.value.exit_code == 72


def test_a_full_disk_is_found_before_a_checkpoint_is_written(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(DiskError, match="a checkpoint takes about"):
        run_stage(LORA, tmp_path, inputs, save_steps=2, **SETTINGS)
    assert not (tmp_path / "scratch" / "staging" / "checkpoint-2").exists()


@pytest.fixture
def unlike(inputs: dict[str, Artifact], tmp_path: Path) -> dict[str, Artifact]:
    """Validation rows that answer with something else than the train rows, so that their loss soon rises."""

    def row(index: int) -> dict[str, Any]:
        made = messages_row(index)
        if index >= 8:
            made["messages"][1]["content"] = "return value of list object given"  # type: ignore[index]
        return made

    return {**inputs, "data": artifact(Kind.DATA, write_data(tmp_path / "unlike", row, 8, 4, 0))}


def validations(ctx: Context[Any]) -> dict[int, float]:
    return {int(line["step"]): line["val/loss"] for line in metrics(ctx) if "val/loss" in line}


@pytest.mark.parametrize("stage", [SFT, LORA], ids=lambda stage: stage.name)
def test_the_weights_of_the_lowest_validation_loss_are_published(
    stage: Stage[Any], unlike: dict[str, Artifact], tmp_path: Path
) -> None:
    ctx = run_stage(stage, tmp_path / "best", unlike, load_best_model_at_end=True, **RISING)
    found = validations(ctx)
    best = min(found, key=lambda step: found[step])
    assert 0 < best < 12
    assert len(found) == 6
    assert ctx.events.summary["best_step"] == best
    assert ctx.events.summary["val/loss"] == found[best]
    model = load_plain(ctx.out / "model", unlike["model"].path)
    rows = read_jsonl(unlike["data"].path / "validation.jsonl")
    parts = [answer_nll(model, AutoTokenizer.from_pretrained(ctx.out / "model"), row) for row in rows]
    mean = sum(loss * count for loss, count in parts) / sum(count for _, count in parts)
    assert mean == pytest.approx(found[best], rel=1e-4)


def test_training_stops_early_once_validation_no_longer_improves(unlike: dict[str, Artifact], tmp_path: Path) -> None:
    ctx = run_stage(LORA, tmp_path / "early", unlike, early_stopping_patience=2, **RISING)
    found = validations(ctx)
    best = min(found, key=lambda step: found[step])
    assert max(found) == best + 4 < 12  # two validations later
    assert ctx.events.summary["steps"] == best + 4
    kept = run_stage(LORA, tmp_path / "kept", unlike, load_best_model_at_end=True, **RISING)
    assert output(ctx, unlike).digest == output(kept, unlike).digest


def test_a_stopped_run_remembers_its_best_weights(unlike: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**RISING, "early_stopping_patience": 2}
    whole = run_stage(LORA, tmp_path / "whole", unlike, **settings)
    best = whole.events.summary["best_step"]
    stopped_after(best, LORA, tmp_path / "stopped", unlike, **settings)
    resumed = run_stage(LORA, tmp_path / "stopped", unlike, **settings)
    assert metrics(resumed) == metrics(whole)
    assert output(resumed, unlike).digest == output(whole, unlike).digest


@pytest.mark.parametrize(
    ("facts", "changed"),
    [
        ({"micro_batch_size": 12, "gradient_checkpointing": False}, {"micro_batch_size": 6}),
        ({"micro_batch_size": 3, "gradient_checkpointing": False}, {"micro_batch_size": 1}),
        (
            {"micro_batch_size": 1, "gradient_checkpointing": False},
            {"micro_batch_size": 1, "gradient_checkpointing": True},
        ),
    ],
)
def test_after_out_of_memory_micro_batches_shrink_and_then_activations_go(
    facts: dict[str, Any], changed: dict[str, Any]
) -> None:
    config = LoraConfig(global_batch_size=12)
    found = leaner(config, facts)
    assert found is not None
    assert found[0] == config.model_copy(update=changed)
    assert SftConfig.model_validate(found[0].model_dump(include=set(SftConfig.model_fields)))


@pytest.mark.parametrize("facts", [{}, {"micro_batch_size": 1, "gradient_checkpointing": True}])
def test_there_is_an_end_to_what_can_be_saved(facts: dict[str, Any]) -> None:
    assert leaner(LoraConfig(), facts) is None
