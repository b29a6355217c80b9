"""What every trainer of ftcli does around a step, whatever its loss: mixed into TRL's trainers.

* A step whose loss or gradient is not finite is dropped before the optimizer, and three in a row stop the run;
  transformers trains on, and logs loss 0. A loss that stands out is noted.
* Checkpoints are sealed (`ftcli.training.checkpoints`), hold finite weights only, and are not begun without room on the disk.
* Nothing is reported to anyone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PrinterCallback, Trainer

from ftcli.core.errors import Diverged
from ftcli.core.events import Events
from ftcli.training import checkpoints
from ftcli.training.tally import Tally

CALMER = "lower learning_rate or lengthen warmup_steps; with precision bf16, try fp32"
DROPPED_IN_A_ROW = 3
"""So many steps that are not finite end the run: the weights are at fault then, not a row."""


@contextmanager
def trained_weights_kept(model: nn.Module) -> Iterator[None]:
    """Give the trained weights of ``model`` back as they were: TRL's constructors cast adapters on 4-bit models to bfloat16,
    which loses small updates."""
    own = [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]
    yield
    for weight, data in own:
        weight.data = data


class GuardedTrainer(Trainer):
    """To be named before TRL's trainer among the bases. `guard` is called once that is constructed, and `count` with each
    micro-batch."""

    def guard(self, tally: Tally, events: Events, scratch: Path) -> None:
        """Report to ``events`` and ``tally``, and keep checkpoints in ``scratch``."""
        self.remove_callback(PrinterCallback)
        self._tally = tally
        self._events = events
        self._checkpoints = scratch / "checkpoints"
        self._reset_step()

    def _send_telemetry(self) -> None:
        """TRL reports trainer, model type and hardware to the hub; ftcli sends nothing."""

    def _reset_step(self) -> None:
        self._step_loss: Any = 0.0
        self._step_items: Any = 0
        self._step_tokens: Any = 0

    def count(self, loss: Tensor, items: Tensor | int, tokens: Tensor) -> None:
        """Of one micro-batch: the summed ``loss`` of its ``items`` (labels or pairs), and its ``tokens`` without padding."""
        self._step_loss += loss.detach().double()
        self._step_items += items
        self._step_tokens += tokens

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called once a step, after clipping and before the optimizer."""
        norm = float(super()._get_grad_norm(model, grad_norm))
        total, items, tokens = float(self._step_loss), int(self._step_items), int(self._step_tokens)
        self._reset_step()
        step = self.state.global_step + 1
        if math.isfinite(norm) and math.isfinite(total):
            self._tally.add_step(total, items, tokens)
            if self._tally.is_spike(step, total / items):
                self._events.note(f"step {step}: loss {total / items:.3g} stands out from the steps before")
        else:
            self._drop_step(step, f"loss {total / items:g} and gradient norm {norm:g} are not finite")
        return norm

    def _drop_step(self, step: int, what: str) -> None:
        self.model.zero_grad(set_to_none=True)  # an optimizer passes over weights without a gradient
        self._tally.drop_step()
        self._events.note(f"step {step}: {what}; the step is dropped")
        if self._tally.dropped_in_a_row == DROPPED_IN_A_ROW:
            raise Diverged(f"step {step}: {what}, {DROPPED_IN_A_ROW} steps in a row; {self._last_good()}", CALMER)

    def _last_good(self) -> str:
        last = checkpoints.newest(self._checkpoints)
        return f"the last good checkpoint is {last[0]}" if last else "there is no checkpoint yet"

    def require_finite(self) -> None:
        """Raise `Diverged` if a weight that is trained is not finite: it must be neither saved nor published."""
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters() if weight.requires_grad):
            raise Diverged(
                f"after step {self.state.global_step}: some weights are not finite; {self._last_good()}", CALMER
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.require_finite()
        # The first time: what is trained in float32, with AdamW's two moments.
        trained = sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)
        checkpoints.require_space(self._checkpoints, 12 * trained)
        # Not TRL's own, which writes a model card first and may ask trackers for it.
        Trainer._save_checkpoint(self, model, trial)
        step = self.state.global_step
        written = Path(self.args.output_dir) / f"checkpoint-{step}"
        checkpoints.seal(written, self._checkpoints, step, self._tally.to_json())
