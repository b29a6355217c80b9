"""TRL's `SFTTrainer` with a few things changed, beside what all trainers share (`ftcli.training.guarded`).

* The loss: rows packed, head at label positions only (`ftcli.training.loss`), divided by the labels of the whole step,
  so that accumulation is exact. NEFTune's noise knows where packed rows end.
* Validation loss: one mean over all labels; transformers averages the means of batches. The best weights can be kept.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ftcli.core.errors import Diverged
from ftcli.core.events import Events
from ftcli.models.packing import takes_packed_rows
from ftcli.training import best
from ftcli.training.collate import collator
from ftcli.training.guarded import CALMER, GuardedTrainer, trained_weights_kept
from ftcli.training.loss import has_plain_head, nll_sum
from ftcli.training.neftune import noise
from ftcli.training.tally import Tally


class AnswerTrainer(GuardedTrainer, SFTTrainer):
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
        with trained_weights_kept(model):
            super().__init__(
                model=model,
                args=args,
                train_dataset=train,
                eval_dataset=validation,
                processing_class=tokenizer,
                data_collator=collator(tokenizer),
                callbacks=callbacks,
            )
        self.guard(tally, events, scratch)
        self.model_accepts_loss_kwargs = True  # asks the training loop for num_items_in_batch
        self._how = {"packed": takes_packed_rows(model), "plain_head": has_plain_head(model)}
        self._best = scratch / "best"
        self._noise_alpha = neftune_noise_alpha
        self._keeps_best = keeps_best
        self._patience = patience

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
        self.count(nll, labels, lengths.sum())
        return nll / num_items_in_batch * self.accelerator.num_processes  # DDP averages gradients over processes

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
        super()._save_checkpoint(model, trial)
        if self._tally.best:
            best.drop_others(self._best, self._tally.best.step)
