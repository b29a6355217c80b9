"""What happens between a trainer's steps: figures go to a stage's events, and a wish to stop is heard."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftcli.core.events import Events
from ftcli.core.stop import Stop
from ftcli.training.tally import Tally


def peak_memory_bytes() -> int:
    """The most memory so far: of the GPU where there is one, else of this process (ru_maxrss, KiB on Linux, bytes on macOS)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Stopping(TrainerCallback):
    """Ends training after the step in which a stop is asked for, with a checkpoint. ``is_early`` says whether it did."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.is_early = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._stop.asked and state.global_step < state.max_steps:
            self.is_early = control.should_save = control.should_training_stop = True


class Reporter(TrainerCallback):
    """Writes ``train/loss`` (mean over all labels since the last line, null if every step was dropped), ``train/grad_norm``
    and ``train/lr`` of the last step, ``train/tokens`` so far, ``val/loss``, and under ``perf`` the rate in tokens without
    padding, the peak memory, and the share of a GPU's peak (MFU; ``flops_per_token`` and ``peak_flops`` if known).

    ``also`` are figures of the trainer's own log that are written under ``train``, each with what it is called beside the bar, or
    an empty string for one that is not shown there.
    """

    def __init__(
        self,
        events: Events,
        tally: Tally,
        flops_per_token: float = 0.0,
        peak_flops: float | None = None,
        *,
        also: Mapping[str, str] | None = None,
    ) -> None:
        self._events = events
        self._tally = tally
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._also = dict(also or {})
        self._since = time.perf_counter()
        self._validated = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.perf_counter()
        self._tally.add_seconds(now - self._since)
        self._since = now
        last = self._tally.last
        self._events.progress(
            "train",
            state.global_step,
            state.max_steps,
            loss=last.get("train/loss"),
            **{shown: last.get(f"train/{name}") for name, shown in self._also.items() if shown},
            tokens_per_s=last.get("perf/tokens_per_s"),
        )

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        if "grad_norm" not in logs:  # the summary that transformers logs once at the end
            return
        window = self._tally.close_window()
        rate = window.tokens / window.seconds
        values = {
            "train/loss": window.nll / window.labels if window.labels else None,
            "train/grad_norm": logs["grad_norm"] if math.isfinite(logs["grad_norm"]) else None,
            "train/lr": logs["learning_rate"],
            "train/tokens": self._tally.tokens,
            **{f"train/{name}": logs[name] if math.isfinite(logs[name]) else None for name in self._also},
            "perf/tokens_per_s": round(rate, 1),
            "perf/peak_memory_bytes": peak_memory_bytes(),
        }
        if self._peak_flops:
            values["perf/mfu"] = round(rate * self._flops_per_token / self._peak_flops, 4)
        self._write(state.global_step, values)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        self._validated += 1
        self._events.progress("validate", self._validated, len(eval_dataloader))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self._validated = 0
        self._write(state.global_step, {"val/loss": metrics["eval_loss"]})
        self._since = time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    def _write(self, step: int, values: dict[str, Any]) -> None:
        self._tally.last.update({name: value for name, value in values.items() if value is not None})
        self._events.metrics(step, values)
