"""TRL's `DPOTrainer` on pairs of token ids, with the log-probabilities of the reference computed once, before the first step.

Changed, beside what all trainers share (`ftcli.training.guarded`):

* Rows are ids already (``prompt_ids``, ``chosen_ids``, ``rejected_ids``). TRL would render them again, and its chat path puts
  what the template writes after the end-of-turn token into the answer.
* The model computes packed rows, and its head at the answers' positions alone (`ftcli.training.loss.label_logprobs`); TRL 1.16
  computes padding everywhere, and on a CPU the head at every position. What is made of the log-probabilities is TRL's.
* The reference is the policy before its first step, by definition, so it is asked just then: no second model and no copy of
  an adapter is held. (TRL's own pass keeps its results in a cache folder outside the run, and asks the bare base for some
  adapters.) `require_reference` proves that policy and reference agree at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig, DPOTrainer

from ftcli.core.errors import StageFailed
from ftcli.core.events import Events
from ftcli.models.dropout import disable_dropout
from ftcli.models.generate import changes_logits
from ftcli.models.packing import takes_packed_rows
from ftcli.training.guarded import GuardedTrainer, trained_weights_kept
from ftcli.training.loss import label_logprobs
from ftcli.training.tally import Tally

TRL_REFERENCE = "ref"
"""The adapter that TRL adds as the reference of an adapter."""
AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
"""How far, in nats a token, policy and reference may lie apart before the first step: rounding, since batches may differ."""


class PairLogprobs(NamedTuple):
    """Summed log-probabilities of the answers' tokens, float32 [pairs]."""

    chosen: Tensor
    rejected: Tensor


def loss_terms(loss_type: str, label_smoothing: float) -> dict[str, Any]:
    """TRL's ``loss_type``, ``loss_weights`` and ``label_smoothing`` for a loss, with d the difference of the two log-ratios
    and n the tokens of an answer:

    * sigmoid: ``-log sigmoid(beta d)`` (Rafailov et al. 2023, arXiv 2305.18290, eq. 7)
    * ipo: ``(d - 1 / (2 beta))^2`` (Azar et al. 2023, arXiv 2310.12036, eq. 17), each log-ratio divided by its n; the paper
      writes sums
    * hinge: ``max(0, 1 - beta d)`` (SLiC's loss as Liu et al. 2023, arXiv 2309.06657, eq. 10, relate it to a reference)

    TRL 1.16 ignores ``label_smoothing`` e with sigmoid. Conservative DPO (Mitchell 2023), ``(1 - e) L(d) + e L(-d)``, is
    ``2 (1 - e) L(d) - (1 - 2 e) R``, where R is TRL's robust loss ``((1 - e) L(d) - e L(-d)) / (1 - 2 e)``.
    """
    if not label_smoothing:
        return {"loss_type": [loss_type]}
    e = label_smoothing
    return {
        "loss_type": ["sigmoid", "robust"],
        "loss_weights": [2 * (1 - e), 2 * e - 1],
        "label_smoothing": e,
    }


def loss_without_margin(loss_type: str, beta: float) -> float:
    """The loss of a pair whose log-ratios are equal, as all are at the start."""
    return {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 1 / (4 * beta**2)}[loss_type]


class PairTrainer(GuardedTrainer, DPOTrainer):
    """Trains ``model`` on ``pairs``, once `use_reference` was called; ``args`` has ``precompute_ref_log_probs``."""

    def __init__(
        self,
        model: Any,
        args: DPOConfig,
        pairs: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        tally: Tally,
        events: Events,
        scratch: Path,
        callbacks: list[TrainerCallback],
    ) -> None:
        with trained_weights_kept(model):
            super().__init__(
                model=model, args=args, train_dataset=pairs, processing_class=tokenizer, callbacks=callbacks
            )
        if TRL_REFERENCE in getattr(model, "peft_config", {}):
            model.delete_adapter(TRL_REFERENCE)
        disable_dropout(model)  # TRL turns layers off; attention drops by a number of its own
        self._how = {"packed": takes_packed_rows(model), "linear_head": not changes_logits(model)}
        self.guard(tally, events, scratch)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Left to `logprobs`, whose results `use_reference` takes."""
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Mean loss of the pairs of a micro-batch; transformers divides it by their number in a step, and all are of one size."""
        loss: Tensor = super().compute_loss(partial(self._answers, model), inputs, False, num_items_in_batch)
        pairs = len(inputs["input_ids"]) // 2
        self.count(loss * pairs, pairs, inputs["attention_mask"].sum())
        return loss

    def _answers(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: Any
    ) -> SimpleNamespace:
        """What TRL reads of a forward pass, each [B, T - 1]: log-probabilities of ``labels``; what is not reported is 0."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        found = label_logprobs(model, self.model.get_output_embeddings(), batch, **self._how)
        unused = torch.zeros_like(found)
        return SimpleNamespace(log_probs=found, entropy=unused, mean_logits=unused, is_top1=unused.bool())

    @torch.no_grad()
    def logprobs(
        self, rows: Dataset, micro_batch_size: int, on_batch: Callable[[int], None] = lambda done: None
    ) -> PairLogprobs:
        """Of the model as it is now, for the pairs of ``rows``. ``on_batch`` hears how many are done."""
        self.model.eval()
        chosen, rejected = [], []
        for first in range(0, len(rows), micro_batch_size):
            last = min(first + micro_batch_size, len(rows))
            batch = self._prepare_inputs(self.data_collator([rows[place] for place in range(first, last)]))
            labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
            with self.compute_loss_context_manager():
                output = self._answers(self.model, batch["input_ids"], batch["attention_mask"], labels)
            both = output.log_probs.sum(dim=1).float().cpu()
            chosen.append(both[: last - first])
            rejected.append(both[last - first :])
            on_batch(last)
        return PairLogprobs(torch.cat(chosen), torch.cat(rejected))

    def use_reference(self, pairs: Dataset, found: PairLogprobs, order: Sequence[int]) -> None:
        """Train on ``pairs`` in ``order``, held to ``found``, one for each of the pairs."""
        columns = {"ref_chosen_logps": found.chosen, "ref_rejected_logps": found.rejected}
        for name, values in columns.items():
            pairs = pairs.add_column(name, values.numpy())
        self.train_dataset = pairs.select(order)

    def require_reference(self, dtype: torch.dtype) -> None:
        """Raise `StageFailed` unless the policy equals its reference on the first micro-batch, through the loss that trains."""
        rows = [self.train_dataset[place] for place in range(self.args.per_device_train_batch_size)]
        batch = self._prepare_inputs(self.data_collator(rows))
        self.model.train()
        with self.compute_loss_context_manager():
            loss = float(DPOTrainer.compute_loss(self, partial(self._answers, self.model), batch).detach())
        seen = {name: self._metrics["train"][f"rewards/{name}"][-1] for name in ("chosen", "rejected")}
        self._metrics["train"].clear()
        self._total_train_tokens = 0
        tokens = min(sum(len(row[f"{name}_ids"]) for row in rows) / len(rows) for name in seen)
        apart = max(abs(value) for value in seen.values()) / self.beta / tokens
        expected = loss_without_margin(self.loss_types[0], self.beta)
        if not (apart <= AGREEMENT[dtype] and abs(loss / expected - 1) <= 10 * AGREEMENT[dtype]):
            raise StageFailed(
                f"before the first step the loss is {loss:.4f} instead of {expected:.4f}, and model and reference lie "
                f"{apart:.2g} nats a token apart: they are not the same model",
                "try precision fp32; if that changes nothing, this model computes something else while it trains",
            )
