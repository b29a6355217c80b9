"""TRL's `SFTTrainer` with a few things changed, the one place where a library class is subclassed.

* The loss: rows packed, head at label positions only (`ftcli.training.loss`), divided by the labels of the whole step,
  so that accumulation is exact. NEFTune's noise knows where packed rows end.
* Validation loss: one mean over all labels; transformers averages the means of batches. The best weights can be kept.
* A step whose loss or gradient is not finite is dropped before the optimizer, and three in a row stop the run;
  transformers trains on, and logs loss 0. A loss that stands out is noted.
* Checkpoints are sealed (`ftcli.training.checkpoints`), hold finite weights only, and are not begun without room on the disk.

It also keeps adapters on 4-bit models in float32, where TRL casts them to bfloat16 and so loses small updates.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ftcli.core.errors import Diverged
from ftcli.core.events import Events
from ftcli.models.packing import takes_packed_rows
from ftcli.training import best, checkpoints
from ftcli.training.collate import collator
from ftcli.training.loss import has_plain_head, nll_sum
from ftcli.training.neftune import noise
from ftcli.training.tally import Tally

CALMER = "lower learning_rate or lengthen warmup_steps; with precision bf16, try fp32"
DROPPED_IN_A_ROW = 3
"""So many steps that are not finite end the run: the weights are at fault then, not a row."""


class AnswerTrainer(SFTTrainer):
    """Trains ``model`` on the columns ``input_ids`` and ``labels`` (not shifted, `ftcli.training.loss`) in their given
    order.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: SFTConfig,
        train: Dataset,
        validation: Dataset | None,
        tokenizer: PreTrainedTokenizerBase,
        tally: Tally,
        events: Events,
        scratch: Path,
        callbacks: list[TrainerCallback],
        *,
        neftune_noise_alpha: float | None = None,
        keeps_best: bool = False,
        patience: int | None = None,
    ) -> None:
        own = [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            data_collator=collator(tokenizer),
            callbacks=callbacks,
        )
        for weight, data in own:
            weight.data = data
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # asks the training loop for num_items_in_batch
        self._how = {"packed": takes_packed_rows(model), "plain_head": has_plain_head(model)}
        self._tally = tally
        self._events = events
        self._checkpoints = scratch / "checkpoints"
        self._best = scratch / "best"
        self._noise_alpha = neftune_noise_alpha
        self._keeps_best = keeps_best
        self._patience = patience
        self._reset_step()

    def _send_telemetry(self) -> None:
        """TRL reports trainer, model type and hardware to the hub; ftcli sends nothing."""

    def _reset_step(self) -> None:
        self._step_nll: Any = 0.0
        self._step_labels: Any = 0
        self._step_tokens: Any = 0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Negative log-likelihood of this micro-batch over the labels of the whole step, for all processes."""
        lengths = inputs["attention_mask"].sum(dim=1)
        embeddings = self.model.get_input_embeddings()
        with (
            noise(embeddings, self._noise_alpha, lengths, packed=self._how["packed"])
            if self._noise_alpha
            else nullcontext()
        ):
            nll, labels = nll_sum(model, self.model.get_output_embeddings(), inputs, **self._how)
        self._step_nll += nll.detach().double()
        self._step_labels += labels
        self._step_tokens += lengths.sum()
        return nll / num_items_in_batch * self.accelerator.num_processes  # DDP averages gradients over processes

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called once a step, after clipping and before the optimizer."""
        norm = float(super()._get_grad_norm(model, grad_norm))
        nll, labels, tokens = float(self._step_nll), int(self._step_labels), int(self._step_tokens)
        self._reset_step()
        step = self.state.global_step + 1
        if math.isfinite(norm) and math.isfinite(nll):
            self._tally.add_step(nll, labels, tokens)
            if self._tally.is_spike(step, nll / labels):
                self._events.note(f"step {step}: loss {nll / labels:.3g} stands out from the steps before")
        else:
            self._drop_step(step, f"loss {nll / labels:g} and gradient norm {norm:g} are not finite")
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

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean negative log-likelihood over all labels of the validation rows."""
        head = self.model.get_output_embeddings()
        self.callback_handler.eval_dataloader = loader = self.get_eval_dataloader(eval_dataset)
        self.model.eval()
        total, count = 0.0, 0
        for batch in loader:
            with torch.no_grad():
                nll, labels = nll_sum(self.model_wrapped, head, self._prepare_inputs(batch), **self._how)
            total += float(self.accelerator.reduce(nll.double()))
            count += int(self.accelerator.reduce(labels))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if not math.isfinite(total):
            raise Diverged(f"after step {self.state.global_step}: validation loss is {total / count:g}", CALMER)
        metrics = {f"{metric_key_prefix}_loss": total / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self._keeps_best:
            self._note_best(total / count)
        return metrics

    def _note_best(self, loss: float) -> None:
        if self._tally.add_validation(self.state.global_step, loss):
            best.keep(self.model, self._best, self.state.global_step)
        elif self._patience and self._tally.since_best >= self._patience and self._tally.best:
            self._events.note(
                f"validation loss was lowest at step {self._tally.best.step}; {self._patience} validations without a lower "
                "one end the training"
            )
            self.control.should_training_stop = True

    def restore_best(self) -> None:
        """Go back to the weights of the lowest validation loss."""
        if self._tally.best and self._tally.best.step != self.state.global_step:
            best.restore(self.model, self._best, self._tally.best.step)
            self._events.note(f"publishing the weights of step {self._tally.best.step}, the lowest validation loss")

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.require_finite()
        # The first time: what is trained in float32, with AdamW's two moments.
        trained = sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)
        checkpoints.require_space(self._checkpoints, 12 * trained)
        # Not SFTTrainer's own, which writes a model card first and may ask trackers for it.
        Trainer._save_checkpoint(self, model, trial)
        step = self.state.global_step
        written = Path(self.args.output_dir) / f"checkpoint-{step}"
        checkpoints.seal(written, self._checkpoints, step, self._tally.to_json())
        if self._tally.best:
            best.drop_others(self._best, self._tally.best.step)
