"""TRL's `SFTTrainer` with four things changed, the one place where a library class is subclassed.

* The loss: rows packed, head at label positions only (`ftcli.training.loss`), divided by the labels of the whole step,
  so that accumulation is exact.
* Validation loss: one mean over all labels; transformers averages the means of batches.
* A step whose loss or gradient is not finite stops the run before the optimizer; transformers trains on, and logs loss
  0.
* Checkpoints are sealed (`ftcli.training.checkpoints`).

It also keeps adapters on 4-bit models in float32, where TRL casts them to bfloat16 and so loses small updates.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ftcli.core.errors import Diverged
from ftcli.models.packing import takes_packed_rows
from ftcli.training import checkpoints
from ftcli.training.loss import nll_sum
from ftcli.training.tally import Tally

CALMER = "lower learning_rate or lengthen warmup_steps; with precision bf16, try fp32"


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
        checkpoint_folder: Path,
        callbacks: list[TrainerCallback],
    ) -> None:
        own = [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        for weight, data in own:
            weight.data = data
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # asks the training loop for num_items_in_batch
        self._packed = takes_packed_rows(model)
        self._tally = tally
        self._checkpoint_folder = checkpoint_folder
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
        nll, labels = nll_sum(model, self.model.get_output_embeddings(), inputs, packed=self._packed)
        self._step_nll += nll.detach().double()
        self._step_labels += labels
        self._step_tokens += inputs["attention_mask"].sum()
        return nll / num_items_in_batch * self.accelerator.num_processes  # DDP averages gradients over processes

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called once a step, after clipping and before the optimizer."""
        norm = float(super()._get_grad_norm(model, grad_norm))
        nll, labels, tokens = float(self._step_nll), int(self._step_labels), int(self._step_tokens)
        self._reset_step()
        if not (math.isfinite(norm) and math.isfinite(nll)):
            raise Diverged(
                f"step {self.state.global_step + 1}: loss {nll / labels:g} and gradient norm {norm:g} are not finite; "
                "the step was not taken",
                CALMER,
            )
        self._tally.add_step(nll, labels, tokens)
        return norm

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
                nll, labels = nll_sum(self.model_wrapped, head, self._prepare_inputs(batch), packed=self._packed)
            total += float(self.accelerator.reduce(nll.double()))
            count += int(self.accelerator.reduce(labels))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if not math.isfinite(total):
            raise Diverged(f"after step {self.state.global_step}: validation loss is {total / count:g}", CALMER)
        metrics = {f"{metric_key_prefix}_loss": total / count}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Not SFTTrainer's own, which writes a model card first and may ask trackers for it.
        Trainer._save_checkpoint(self, model, trial)
        step = self.state.global_step
        written = Path(self.args.output_dir) / f"checkpoint-{step}"
        checkpoints.seal(written, self._checkpoint_folder, step, self._tally.to_json())
