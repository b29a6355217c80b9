"""Hands a trainer's figures to a stage's events: metrics.jsonl and progress."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftcli.core.events import Events
from ftcli.training.tally import Tally


class Reporter(TrainerCallback):
    """Writes ``train/loss`` (mean over all labels since the last line), ``train/grad_norm`` and ``train/lr`` of the
    last step, ``val/loss``, and under ``perf`` the rate in tokens without padding.
    """

    def __init__(self, events: Events, tally: Tally) -> None:
        self._events = events
        self._tally = tally
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
            tokens_per_s=last.get("perf/tokens_per_s"),
        )

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        if "grad_norm" not in logs:  # the summary that transformers logs once at the end
            return
        window = self._tally.close_window()
        values = {
            "train/loss": window.nll / window.labels,
            "train/grad_norm": logs["grad_norm"],
            "train/lr": logs["learning_rate"],
            "perf/tokens_per_s": round(window.tokens / window.seconds, 1),
        }
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

    def _write(self, step: int, values: dict[str, float]) -> None:
        self._tally.last.update(values)
        self._events.metrics(step, values)
