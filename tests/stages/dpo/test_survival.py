"""What may come between a run and its end: a signal, a kill, a spoiled step, too little memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from ftcli.core.errors import Diverged, Stopped
from ftcli.core.events import Event
from ftcli.core.stage import Artifact, Kind
from ftcli.core.stop import Stop
from ftcli.data.rows import read_jsonl
from ftcli.stages.dpo.stage import DPO
from ftcli.training.pair_trainer import PairTrainer
from tests.conftest import artifact, run_stage, write_data
from tests.stages.dpo.planted import load_plain, planted_row
from tests.stages.reward.killing import run_until

SETTINGS: dict[str, Any] = {"learning_rate": 3e-3, "global_batch_size": 8, "max_steps": 6, "precision": "fp32"}


@pytest.fixture(scope="module")
def inputs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = write_data(tmp_path_factory.mktemp("data") / "pairs", planted_row, 20, 6, 0)
    return {"model": artifact(Kind.MODEL, tiny_model), "data": artifact(Kind.DATA, folder)}


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = read_jsonl(folder / "scratch" / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in lines]


def digest(folder: Path) -> str:
    return artifact(Kind.MODEL, folder / "out" / "model").digest


@pytest.mark.parametrize("method", ["auto", "qlora", "full"])
def test_a_stopped_run_goes_on_as_if_unbroken(method: str, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stop, settings = Stop(), {**SETTINGS, "method": method}

    def ask(event: Event) -> None:
        if event.get("task") == "train" and event["done"] == 3:
            stop.ask("SIGTERM")

    with pytest.raises(Stopped, match="stopped by SIGTERM after step 3 of 6, with a checkpoint") as raised:
        run_stage(DPO, tmp_path / "stopped", inputs, sink=ask, stop=stop, **settings)
    assert raised.value.exit_code == 75
    assert not (tmp_path / "stopped" / "out" / "model").exists()
    whole = run_stage(DPO, tmp_path / "whole", inputs, **settings)
    resumed = run_stage(DPO, tmp_path / "stopped", inputs, **settings)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    assert resumed.events.summary["val/margin"] == whole.events.summary["val/margin"]
    assert resumed.events.summary["tokens"] == whole.events.summary["tokens"]


@pytest.mark.parametrize("killed_at", [0, 1, 5], ids=["before a step", "before a checkpoint", "after one"])
def test_killed_and_run_again_equals_uninterrupted(killed_at: int, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = {**SETTINGS, "save_steps": 2}
    run_until(DPO, tmp_path / "killed", inputs, killed_at, **settings)
    run_stage(DPO, tmp_path / "killed", inputs, **settings)
    run_stage(DPO, tmp_path / "whole", inputs, **SETTINGS)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


@pytest.mark.parametrize("task", ["reference", "reference, held-out"])
def test_a_stop_before_the_first_step_says_so(task: str, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stop = Stop()

    def ask(event: Event) -> None:
        if event.get("task") == task:
            stop.ask("SIGUSR1")

    with pytest.raises(Stopped, match="stopped by SIGUSR1 before the first step"):
        run_stage(DPO, tmp_path, inputs, sink=ask, stop=stop, **SETTINGS)


class Spoiled(PairTrainer):
    """Its gradient is infinite in ``steps``; micro-batches are whole steps."""

    steps: frozenset[int] = frozenset()

    def train(self, **options: Any) -> Any:
        seen: list[int] = []

        def hook(gradient: torch.Tensor) -> torch.Tensor:
            seen.append(1)
            return gradient * float("inf") if len(seen) in self.steps else gradient

        next(weight for weight in self.model.parameters() if weight.requires_grad).register_hook(hook)
        return super().train(**options)


def run_spoiled(
    steps: Collection[int], inputs: dict[str, Artifact], folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> Any:
    monkeypatch.setattr("ftcli.stages.dpo.train.PairTrainer", Spoiled)
    monkeypatch.setattr(Spoiled, "steps", frozenset(steps))
    return run_stage(DPO, folder, inputs, micro_batch_size=8, **{**SETTINGS, **settings})


def test_a_spoiled_step_is_dropped_and_training_goes_on(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = run_spoiled({2, 3, 5}, inputs, tmp_path, monkeypatch)
    found = [line["train/loss"] is None for line in metrics(tmp_path) if "train/lr" in line]
    assert found == [False, True, True, False, True, False]
    assert ctx.events.summary["steps_dropped"] == 3
    weights = load_plain(ctx.out / "model", inputs["model"].path).state_dict()
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_three_spoiled_steps_in_a_row_name_the_last_good_checkpoint(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Diverged, match=r"step 5: .* 3 steps in a row; .* checkpoint is .*checkpoints/step-4") as raised:
        run_spoiled({3, 4, 5}, inputs, tmp_path, monkeypatch, save_steps=2)
    assert raised.value.exit_code == 72


def test_with_smaller_micro_batches_a_run_goes_on_to_the_same_result(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    run_until(DPO, tmp_path / "lean", inputs, 3, save_steps=2, micro_batch_size=8, **SETTINGS)
    run_stage(DPO, tmp_path / "lean", inputs, save_steps=2, micro_batch_size=4, **SETTINGS)
    run_stage(DPO, tmp_path / "whole", inputs, micro_batch_size=8, **SETTINGS)
    for ours, theirs in zip(metrics(tmp_path / "lean"), metrics(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
