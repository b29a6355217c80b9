"""Direct preference optimisation, read from top to bottom: rows -> pairs of ids -> model -> reference -> trainer -> judgement.

Rafailov et al. 2023 (arXiv 2305.18290). The policy starts as the reference, and the reference's log-probabilities of all
answers are taken then, so training holds one model. What is trained is float32, frozen weights are bfloat16 or 4-bit.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import Sequence as Column
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, set_seed
from trl import DPOConfig

from ftcli.core.artifacts import fsync_path
from ftcli.core.config import non_default
from ftcli.core.errors import Stopped, UsageError
from ftcli.core.stage import Context
from ftcli.data.chat import stop_token_ids
from ftcli.models.load import load_tokenizer_of, pick_device, pick_dtype, save_adapter, write_base_record
from ftcli.models.quantize import count_weights
from ftcli.stages.dpo.config import DpoConfig
from ftcli.stages.dpo.judge import HeldOut, judge
from ftcli.stages.dpo.pairs import Pairs, encode_split, read_rows
from ftcli.training import checkpoints
from ftcli.training.batches import derive_micro_batch, largest_micro_batch, row_order, total_steps
from ftcli.training.callbacks import Reporter, Stopping
from ftcli.training.hardware import (
    Choice,
    choose_checkpointing,
    choose_optimizer,
    peak_flops,
    step_flops,
    this_machine,
)
from ftcli.training.pair_trainer import PairLogprobs, PairTrainer, loss_terms
from ftcli.training.start import Start, load_start
from ftcli.training.tally import Tally

LEARNING_RATE = {"adapter": 5e-6, "whole": 5e-7}
SHOWN = {
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "",
    "rewards/rejected": "",
    "logps/chosen": "",
    "logps/rejected": "",
}
"""TRL's figures that are kept of each step, means over its pairs, and what some are called beside the bar."""


def train(ctx: Context[DpoConfig]) -> None:
    """Train ``model`` on ``data``; write the output ``model``. Continues from the newest checkpoint in scratch."""
    config, source = ctx.config, ctx.one("model")
    device = pick_device()
    dtype = pick_dtype(config.precision, device)
    train_rows, held_out_rows, split = read_rows(ctx)
    tokenizer = load_tokenizer_of(source)
    set_seed(config.seed)  # new adapters are random
    start = _load(ctx, dtype, device)
    stop_ids = stop_token_ids(tokenizer, start.model.generation_config.eos_token_id)
    pairs = encode_split(ctx, tokenizer, stop_ids, "train", train_rows)
    held_out = encode_split(ctx, tokenizer, stop_ids, split, held_out_rows)
    rows, held_out_pairs = _dataset(pairs), _dataset(held_out)

    steps = total_steps(len(pairs.lengths), config.global_batch_size, config.num_train_epochs, config.max_steps)
    order = row_order(pairs.lengths, config.global_batch_size, steps, config.seed)
    ordered = [pairs.lengths[place] for place in order]
    micro = config.micro_batch_size or derive_micro_batch(ordered, config.global_batch_size, device, packed=False)
    arguments = _arguments(ctx, start, dtype, steps, micro, largest_micro_batch(ordered, micro, packed=False))
    resume = checkpoints.newest(ctx.scratch / "checkpoints")
    tally = Tally.from_json(resume[2]) if resume else Tally()
    ctx.events.rewind(resume[1] if resume else -1)
    if resume:
        ctx.events.note(f"going on after step {resume[1]} of {steps}")
    stopping = Stopping(ctx.stop)
    total, trainable = _sizes(start.model)
    flops = step_flops(1, total, trainable)
    trainer = PairTrainer(
        model=start.model,
        args=arguments,
        pairs=rows,
        tokenizer=tokenizer,
        tally=tally,
        events=ctx.events,
        scratch=ctx.scratch,
        callbacks=[Reporter(ctx.events, tally, flops, peak_flops(device), also=SHOWN), stopping],
    )
    reference, held_out_reference = _reference(ctx, trainer, rows, order, held_out_pairs, micro)
    trainer.use_reference(rows, reference, order)
    trainer.require_reference(dtype)
    measured = _held_out(held_out_pairs, held_out_reference)
    before = _judge(ctx, measured, held_out_reference)
    if resume is None:
        _write_judgement(ctx, 0, before)
    _stop_early(ctx)
    trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    if stopping.is_early:
        raise Stopped(
            f"stopped by {ctx.stop.asked} after step {trainer.state.global_step} of {steps}, with a checkpoint",
            "the same command goes on from there",
        )
    trainer.require_finite()
    after = _judge(ctx, measured, _logprobs(ctx, trainer, held_out_pairs, micro, "judge"))
    _write_judgement(ctx, steps, after)
    _save(ctx, start, tokenizer)
    _summarize(ctx, pairs, held_out, split, before, after, tally, steps)


def _dataset(pairs: Pairs) -> Dataset:
    tokens = Column(Value("int32"))
    features = dict.fromkeys(pairs.columns, tokens) | {"number": Value("int32")}
    return Dataset.from_dict(pairs.columns, Features(features))


def _load(ctx: Context[DpoConfig], dtype: torch.dtype, device: torch.device) -> Start:
    """The policy. Raises `UsageError` for settings that an adapter which is trained further cannot take."""
    config, source = ctx.config, ctx.one("model")
    start = load_start(source, config.method, dtype, device, r=config.lora_r, alpha=config.lora_alpha)
    if start.is_whole or start.is_fresh:
        return start
    if wrong := start.contradicted(non_default(config)):
        raise UsageError(
            f"{source.ref} is an adapter already, which cannot take {wrong}",
            "drop these settings to train it further, or merge it first: ftcli export --from MODEL --to merged",
        )
    if isinstance(start.model.get_output_embeddings(), BaseTunerLayer):
        raise UsageError(
            f"{source.ref} adapts the head, which the loss does not train: it takes the head's own weights",
            f"merge it first: ftcli export --from {source.ref} --to merged",
        )
    ctx.events.note(f"training the adapter {source.ref} further, with its own rank and target modules")
    return start


def _arguments(
    ctx: Context[DpoConfig], start: Start, dtype: torch.dtype, steps: int, micro: int, tokens: int
) -> DPOConfig:
    """What TRL and transformers are told. ``tokens`` are those of the largest micro-batch. Says what was chosen and why."""
    config, model = ctx.config, start.model
    machine = this_machine(model.device)
    _, trainable = _sizes(model)
    shape = model.config.get_text_config()
    optimizer = choose_optimizer("auto", machine, four_bit=start.quantization is not None)
    checkpointing = choose_checkpointing(
        config.gradient_checkpointing,
        machine,
        state_bytes=sum(weight.nbytes for weight in model.parameters()) + 12 * trainable,
        tokens=tokens,
        layers=shape.num_hidden_layers,
        hidden=shape.hidden_size,
        vocabulary=shape.vocab_size,
    )
    learning_rate = config.learning_rate or LEARNING_RATE["whole" if start.is_whole else "adapter"]
    _report_choices(ctx, start, learning_rate, micro, {"optim": optimizer, "gradient_checkpointing": checkpointing})
    staging = ctx.scratch / "staging"
    shutil.rmtree(staging, ignore_errors=True)  # what a killed run was writing
    return DPOConfig(
        output_dir=str(staging),
        seed=config.seed,
        beta=config.beta,
        **loss_terms(config.loss_type, config.label_smoothing),
        max_length=None,  # pairs were cut when they were encoded, and counted
        precompute_ref_log_probs=True,
        learning_rate=learning_rate,
        num_train_epochs=1,  # all passes are laid out in row_order
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.global_batch_size // micro,
        train_sampling_strategy="sequential",
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=optimizer.value,
        bf16=dtype is torch.bfloat16 and start.needs_autocast,
        use_cpu=model.device.type == "cpu",
        gradient_checkpointing=checkpointing.value,
        use_cache=model.config.use_cache,  # else the trainer would change what is saved
        eval_strategy="no",
        save_strategy="steps" if config.save_steps < steps else "no",
        save_steps=config.save_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=model.device.type != "cpu",
        report_to="none",
        disable_tqdm=True,
    )


def _report_choices(
    ctx: Context[DpoConfig], start: Start, learning_rate: float, micro: int, choices: dict[str, Choice]
) -> None:
    """Say what was chosen, and record it now: what is tried after memory ran out depends on it."""
    total, trainable = _sizes(start.model)
    kind = "all weights" if start.is_whole else "a new adapter" if start.is_fresh else "the adapter"
    checkpointing = choices["gradient_checkpointing"]
    ctx.events.note(
        f"training {kind}, {trainable:,} of {total:,} weights ({trainable / total:.2%}), learning rate {learning_rate:g}, "
        f"micro-batches of {micro} pairs, optim {choices['optim'].value}, "
        f"{'with' if checkpointing.value else 'without'} gradient_checkpointing ({checkpointing.reason})"
    )
    ctx.events.summarize(
        {
            "micro_batch_size": micro,
            "learning_rate": learning_rate,
            **{name: choice.value for name, choice in choices.items()},
            "reasons": {name: choice.reason for name, choice in choices.items()},
            "trainable_parameters": trainable,
            "total_parameters": total,
            "trainable_share": trainable / total,
        }
    )


def _sizes(model: Any) -> tuple[int, int]:
    """All weights, and those that are trained."""
    every = list(model.parameters())
    return count_weights(every), count_weights(weight for weight in every if weight.requires_grad)


def _reference(
    ctx: Context[DpoConfig], trainer: PairTrainer, rows: Dataset, order: list[int], held_out: Dataset, micro: int
) -> tuple[PairLogprobs, PairLogprobs]:
    """Log-probabilities of the policy before its first step, of those training ``rows`` that ``order`` names (others are 0)
    and of the held-out ones. Kept in scratch, so that a run that goes on is held to the same."""
    path = ctx.scratch / "reference.safetensors"
    if not path.is_file():
        used = list(dict.fromkeys(order))  # in micro-batches as they will be trained
        found = _logprobs(ctx, trainer, rows.select(used), micro, "reference")
        chosen, rejected = torch.zeros(len(rows)), torch.zeros(len(rows))
        chosen[torch.tensor(used)], rejected[torch.tensor(used)] = found
        held = _logprobs(ctx, trainer, held_out, micro, "reference, held-out")
        tensors = {"chosen": chosen, "rejected": rejected, "held_chosen": held.chosen, "held_rejected": held.rejected}
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary)
        fsync_path(temporary)
        temporary.rename(path)
    kept = load_file(path)
    return PairLogprobs(kept["chosen"], kept["rejected"]), PairLogprobs(kept["held_chosen"], kept["held_rejected"])


def _logprobs(ctx: Context[DpoConfig], trainer: PairTrainer, rows: Dataset, micro: int, task: str) -> PairLogprobs:
    def on_batch(done: int) -> None:
        ctx.events.progress(task, done, len(rows))
        if task != "judge":
            _stop_early(ctx)

    return trainer.logprobs(rows, micro, on_batch)


def _stop_early(ctx: Context[DpoConfig]) -> None:
    if ctx.stop.asked:
        raise Stopped(f"stopped by {ctx.stop.asked} before the first step", "the same command goes on")


def _held_out(rows: Dataset, reference: PairLogprobs) -> HeldOut:
    tokens = {
        name: np.array([len(ids) for ids in rows[name]], dtype=np.float64) for name in ("chosen_ids", "rejected_ids")
    }
    return HeldOut(
        np.array(rows["number"]),
        tokens["chosen_ids"],
        tokens["rejected_ids"],
        reference.chosen.double().numpy(),
        reference.rejected.double().numpy(),
    )


def _judge(ctx: Context[DpoConfig], pairs: HeldOut, found: PairLogprobs) -> dict[str, float]:
    config = ctx.config
    return judge(
        pairs,
        found.chosen.double().numpy(),
        found.rejected.double().numpy(),
        beta=config.beta,
        loss_type=config.loss_type,
        label_smoothing=config.label_smoothing,
    )


def _write_judgement(ctx: Context[DpoConfig], step: int, stats: dict[str, float]) -> None:
    ctx.events.metrics(
        step,
        {
            "val/loss": stats["loss"],
            "val/rewards/accuracies": stats["accuracy"],
            "val/rewards/margins": stats["margin"],
            "val/rewards/chosen": stats["chosen"],
            "val/rewards/rejected": stats["rejected"],
        },
    )


def _save(ctx: Context[DpoConfig], start: Start, tokenizer: Any) -> None:
    source, folder = ctx.one("model"), ctx.output("model")
    tokenizer.save_pretrained(folder)
    if start.is_whole:
        stored = AutoConfig.from_pretrained(source.path).dtype or torch.float32
        start.model.to(stored).save_pretrained(folder)
    else:
        save_adapter(start.model, folder)
        write_base_record(folder, source.base or source, start.quantization, start.double_quant)


def _summarize(
    ctx: Context[DpoConfig],
    pairs: Pairs,
    held_out: Pairs,
    split: str,
    before: dict[str, float],
    after: dict[str, float],
    tally: Tally,
    steps: int,
) -> None:
    baseline = max(after["longer_wins_accuracy"], after["shorter_wins_accuracy"])
    ctx.events.note(
        f"{split}: reward accuracy {after['accuracy']:.3f} ({after['accuracy_low']:.3f} to {after['accuracy_high']:.3f}) on "
        f"{len(held_out.lengths)} pairs, margin {after['margin']:+.3g}; length alone gives {baseline:.3f}; the better answer is "
        f"likelier in {after['likelihood_accuracy']:.3f} of pairs, {before['likelihood_accuracy']:.3f} before"
    )
    if after["accuracy_low"] <= baseline:
        ctx.events.note(
            "warning: not clearly better than judging by length; the model may have learnt length and little else"
        )
    if after["chosen"] < 0:
        ctx.events.note(
            "better answers became less likely too, worse ones more so; a higher beta or fewer steps change less"
        )
    ctx.events.summarize(
        {
            **{
                name: value
                for name, value in tally.last.items()
                if name.startswith("train/rewards") or name == "train/loss"
            },
            **{f"val/{name}": value for name, value in after.items()},
            "val/loss_before": before["loss"],
            "val/likelihood_accuracy_before": before["likelihood_accuracy"],
            **{f"train/{name}": count for name, count in pairs.encoded.counts().items()},
            **{f"val/{name}": count for name, count in held_out.encoded.counts().items()},
            "val/split": split,
            "steps": steps,
            "steps_dropped": tally.dropped,
            "loss_spikes": tally.spikes,
            "tokens": tally.tokens,
            "curves": {name: ctx.events.series(name) for name in ("train/loss", "train/rewards/accuracies")},
            "perf/seconds": round(tally.seconds, 3),
            "perf/tokens_per_s": round(tally.tokens / tally.seconds, 1),
        }
    )
