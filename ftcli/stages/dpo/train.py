"""Direct preference optimisation, read from top to bottom: rows -> pairs of ids -> model -> reference -> trainer -> judgement.

Rafailov et al. 2023 (arXiv 2305.18290). The policy starts as the reference, and the reference's log-probabilities of all
answers are taken then, so training holds one model. What is trained is float32, frozen weights are bfloat16 or 4-bit.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
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
from ftcli.core.errors import BadData, Stopped, UsageError
from ftcli.core.stage import Context
from ftcli.data.chat import stop_token_ids
from ftcli.data.pairs import Answers, Encoded, Pair, encode_pairs, without_prompts
from ftcli.data.rows import Row, RowType, read_split
from ftcli.models.load import load_tokenizer_of, pick_device, pick_dtype, save_adapter, write_base_record
from ftcli.stages.dpo.config import DpoConfig
from ftcli.stages.dpo.judge import HeldOut, judge
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


@dataclass(frozen=True)
class Pairs:
    """``rows`` has a pair in each row: ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` and its prompt's ``number``."""

    rows: Dataset
    lengths: list[int]
    """Tokens that each pair takes, both answers padded to the longer one."""
    encoded: Encoded


def train(ctx: Context[DpoConfig]) -> None:
    """Train ``model`` on ``data``; write the output ``model``. Continues from the newest checkpoint in scratch."""
    config, source = ctx.config, ctx.one("model")
    device = pick_device()
    dtype = pick_dtype(config.precision, device)
    train_rows, held_out_rows, split = _read(ctx)
    tokenizer = load_tokenizer_of(source)
    set_seed(config.seed)  # new adapters are random
    start = _load(ctx, dtype, device)
    stop_ids = stop_token_ids(tokenizer, start.model.generation_config.eos_token_id)
    pairs = _encode(ctx, tokenizer, stop_ids, "train", train_rows)
    held_out = _encode(ctx, tokenizer, stop_ids, split, held_out_rows)

    steps = total_steps(len(pairs.rows), config.global_batch_size, config.num_train_epochs, config.max_steps)
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
        pairs=pairs.rows,
        tokenizer=tokenizer,
        tally=tally,
        events=ctx.events,
        scratch=ctx.scratch,
        callbacks=[Reporter(ctx.events, tally, flops, peak_flops(device), also=SHOWN), stopping],
    )
    reference, held_out_reference = _reference(ctx, trainer, pairs.rows, order, held_out.rows, micro)
    trainer.use_reference(pairs.rows, reference, order)
    trainer.require_reference(dtype)
    measured = _held_out(held_out.rows, held_out_reference)
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
    after = _judge(ctx, measured, _logprobs(ctx, trainer, held_out.rows, micro, "judge"))
    _write_judgement(ctx, steps, after)
    _save(ctx, start, tokenizer)
    _summarize(ctx, pairs, held_out, split, before, after, tally, steps)


def _read(ctx: Context[DpoConfig]) -> tuple[list[Row], list[Row], str]:
    """The rows to train on, held-out rows and the split that these are from. A prompt is in one of the two alone."""
    data = ctx.one("data")
    kinds = (RowType.PREFERENCE, RowType.RANKING)
    split = "validation" if read_split(data.path, "validation", *kinds, limit=1) else "test"
    rows, held_out = read_split(data.path, "train", *kinds), read_split(data.path, split, *kinds)
    if not rows or not held_out:
        raise BadData(
            f"{data.ref}: no {'validation rows and no test rows' if rows else 'train rows'}",
            "preference rows come from `ftcli sample`, or from raw pairs and rankings through `ftcli prep`",
        )
    kept = without_prompts(rows, held_out)
    if len(kept) < len(rows):
        ctx.events.note(
            f"train: {len(rows) - len(kept)} of {len(rows)} rows left out, their prompts are in {split} too"
        )
    if not kept:
        raise BadData(f"{data.ref}: all prompts of train are in {split} too", "split by prompt, as `ftcli prep` does")
    ctx.events.summarize({"train/asked_in_held_out": len(rows) - len(kept)})
    return kept, held_out, split


def _encode(ctx: Context[DpoConfig], tokenizer: Any, stop_ids: frozenset[int], split: str, rows: list[Row]) -> Pairs:
    """The pairs of one split, ties left out; what was cut or left out is said aloud. Raises `BadData` if none is left."""
    config, ref = ctx.config, ctx.one("data").ref
    found = encode_pairs(tokenizer, rows, stop_ids, config.max_length, config.overlong, ties="drop")
    counts = {name: count for name, count in found.counts().items() if count and name not in ("pairs", "prompts")}
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    if not found.pairs:
        raise BadData(
            f"{ref}: none of the {len(rows)} {split} rows has a pair that can be used: {told}",
            f"raise max_length (now {config.max_length})" if found.overlong else "the answers of a pair must differ",
        )
    ctx.events.note(f"{split}: {found.pairs} pairs of {len(found.prompts)} prompts" + (f"; {told}" if told else ""))
    flat = [(number, one, pair) for number, one in enumerate(found.prompts) for pair in one.pairs]
    flat.sort(
        key=lambda item: -_length(item[1], item[2])
    )  # so that micro-batches of held-out pairs hold little padding
    tokens = Column(Value("int32"))
    columns = {
        "prompt_ids": [one.prompt for _, one, _ in flat],
        "chosen_ids": [one.answers[pair.winner] for _, one, pair in flat],
        "rejected_ids": [one.answers[pair.loser] for _, one, pair in flat],
        "number": [number for number, _, _ in flat],
    }
    features = dict.fromkeys(columns, tokens) | {"number": Value("int32")}
    return Pairs(Dataset.from_dict(columns, Features(features)), [_length(one, pair) for _, one, pair in flat], found)


def _length(one: Answers, pair: Pair) -> int:
    return 2 * (len(one.prompt) + max(len(one.answers[pair.winner]), len(one.answers[pair.loser])))


def _load(ctx: Context[DpoConfig], dtype: torch.dtype, device: torch.device) -> Start:
    """The policy. Raises `UsageError` for settings that an adapter which is trained further cannot take."""
    config, source = ctx.config, ctx.one("model")
    start = load_start(source, config.method, dtype, device, r=config.lora_r, alpha=config.lora_alpha)
    if start.is_whole or start.is_fresh:
        return start
    adapter, given = start.model.peft_config["default"], non_default(config)
    wrong = [
        f"{name} {given[name]} (it has {own})"
        for name, own in (("lora_r", adapter.r), ("lora_alpha", adapter.lora_alpha))
        if given.get(name, own) != own
    ]
    if wrong:
        raise UsageError(
            f"{source.ref} is an adapter already, which cannot take {', '.join(wrong)}",
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
    """All weights, and those that are trained; a 4-bit one stores two in a byte."""
    sizes = [
        (weight.numel() * (2 * weight.element_size() if hasattr(weight, "quant_state") else 1), weight.requires_grad)
        for weight in model.parameters()
    ]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


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
        f"{len(held_out.rows)} pairs, margin {after['margin']:+.3g}; length alone gives {baseline:.3f}; the better answer is "
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
