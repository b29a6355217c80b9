"""Supervised fine-tuning, read from top to bottom: rows -> tokens -> model -> trainer -> a plain HF or PEFT folder.

Loss on the assistant's tokens only, through their end-of-turn token. What is trained is always float32: a bfloat16
weight of size 0.1 cannot take an update below 2.4e-4, and AdamW's are about the learning rate. So with precision bf16,
sft keeps float32 weights and computes in bfloat16 by autocast, while lora holds the frozen weights in bfloat16 and
qlora in 4 bits (arXiv 2305.14314).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Value
from datasets import Sequence as Column
from transformers import AutoConfig, set_seed
from trl import SFTConfig

from ftcli.core.config import non_default
from ftcli.core.errors import BadData, Stopped, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import stop_token_ids
from ftcli.data.rows import Row, RowType, read_split
from ftcli.data.template_doctor import check_template, require_healthy
from ftcli.models.load import (
    fit_vocabulary,
    is_adapter,
    load_adapter,
    load_base,
    load_tokenizer_of,
    pick_device,
    pick_dtype,
    save_adapter,
    write_base_record,
)
from ftcli.models.packing import takes_packed_rows
from ftcli.models.quantize import count_weights
from ftcli.stages.sft.config import LoraConfig, QloraConfig, SftConfig
from ftcli.stages.sft.encode import Dropped, Encoded, encode
from ftcli.training import checkpoints
from ftcli.training.adapters import add_lora, save_start, trains_modules_whole, widen_trained_modules
from ftcli.training.batches import derive_micro_batch, largest_micro_batch, row_order, total_steps
from ftcli.training.callbacks import Reporter, Stopping
from ftcli.training.hardware import (
    Choice,
    choose_attention,
    choose_checkpointing,
    choose_compile,
    choose_liger,
    choose_optimizer,
    peak_flops,
    step_flops,
    this_machine,
)
from ftcli.training.tally import Tally
from ftcli.training.trackers import require_trackers, tracking_in
from ftcli.training.trainer import AnswerTrainer

TRACKING = "tracking"
"""Where trackers without a server write, in scratch and, once published, in the output."""


def train(ctx: Context[SftConfig]) -> None:
    """Train ``model`` on ``data``; write the output ``model``. Continues from the newest checkpoint in scratch."""
    require_trackers(ctx.config.report_to)
    with tracking_in(ctx.scratch / TRACKING) if ctx.config.report_to else nullcontext():
        _train(ctx)


def _train(ctx: Context[SftConfig]) -> None:
    config, source = ctx.config, ctx.one("model")
    device = pick_device()
    dtype = pick_dtype(config.precision, device)

    train_rows = _read(ctx, "train")
    tokenizer = load_tokenizer_of(source)
    set_seed(config.seed)  # new adapters are random
    machine = this_machine(device)
    model, start = _load(ctx, dtype, device)
    stop_ids = stop_token_ids(tokenizer, model.generation_config.eos_token_id)
    findings = check_template(
        tokenizer, stop_ids, [row for found in train_rows for row in found], model.generation_config.eos_token_id
    )
    require_healthy(findings)
    for finding in findings:
        if finding.level == "warning":  # `ftcli inspect-mask` shows all
            ctx.events.note(f"chat template: {finding.seen}; {finding.fix}")
    sets = [encode(tokenizer, found, stop_ids, config.max_length, config.too_long) for found in train_rows]
    rows = _joined(sets)
    validation = _joined(
        encode(tokenizer, found, stop_ids, config.max_length, config.too_long)
        for found in _read(ctx, "validation", limit=config.eval_rows)
    )
    _report_lengths(ctx, rows)

    steps = total_steps(len(rows.lengths), config.global_batch_size, config.num_train_epochs, config.max_steps)
    order = row_order(rows.lengths, config.global_batch_size, steps, config.seed, _mixture(ctx, sets))
    ordered = [rows.lengths[row] for row in order]
    packed = takes_packed_rows(model)
    micro = config.micro_batch_size or derive_micro_batch(ordered, config.global_batch_size, device, packed=packed)
    total, trainable = _sizes(model)
    shape = model.config.get_text_config()
    choices = {
        "attention": choose_attention(config.attn_implementation, packs=packed, compiled=bool(config.torch_compile)),
        "optim": choose_optimizer(config.optim, machine, four_bit=isinstance(config, QloraConfig)),
        "gradient_checkpointing": choose_checkpointing(
            config.gradient_checkpointing,
            machine,
            state_bytes=sum(weight.nbytes for weight in model.parameters()) + 12 * trainable,
            tokens=largest_micro_batch(ordered, micro, packed=packed),
            layers=shape.num_hidden_layers,
            hidden=shape.hidden_size,
            vocabulary=shape.vocab_size,
        ),
        "torch_compile": choose_compile(config.torch_compile),
        "use_liger_kernel": choose_liger(config.use_liger_kernel, machine),
    }
    _report_choices(ctx, choices, micro, total, trainable)
    staging = ctx.scratch / "staging"
    shutil.rmtree(staging, ignore_errors=True)  # what a killed run was writing
    arguments = SFTConfig(
        output_dir=str(staging),
        seed=config.seed,
        learning_rate=config.learning_rate,
        num_train_epochs=1,  # all passes are laid out in row_order
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=config.global_batch_size // micro,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        lr_scheduler_type=config.lr_scheduler_type,
        lr_scheduler_kwargs=config.lr_scheduler_kwargs or {},
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=choices["optim"].value,
        # Where everything trained lies beside frozen weights, those are held in bfloat16 and nothing is cast.
        bf16=dtype is torch.bfloat16 and (not isinstance(config, LoraConfig) or trains_modules_whole(model)),
        use_cpu=device.type == "cpu",
        gradient_checkpointing=choices["gradient_checkpointing"].value,
        torch_compile=choices["torch_compile"].value,
        use_liger_kernel=choices["use_liger_kernel"].value,
        liger_kernel_config={"cross_entropy": False, "fused_linear_cross_entropy": False},  # the loss is our own
        use_cache=model.config.use_cache,  # else the trainer would change what is saved
        eval_strategy="steps" if validation.lengths else "no",
        eval_steps=config.eval_steps or steps,
        save_strategy="steps" if config.save_steps < steps else "no",
        save_steps=config.save_steps,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=device.type != "cpu",
        report_to=list(config.report_to) or "none",
        run_name=f"{ctx.out.parent.name}",
        disable_tqdm=True,
    )
    resume = checkpoints.newest(ctx.scratch / "checkpoints")
    tally = Tally.from_json(resume[2]) if resume else Tally()
    ctx.events.rewind(resume[1] if resume else 0)
    if resume:
        ctx.events.note(f"going on after step {resume[1]} of {steps}")
    if ctx.stop.asked:
        raise Stopped(f"stopped by {ctx.stop.asked} before the first step", "the same command goes on")
    stopping = Stopping(ctx.stop)
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        train=_columns(rows).select(order),
        validation=_columns(validation) if validation.lengths else None,
        tokenizer=tokenizer,
        tally=tally,
        events=ctx.events,
        scratch=ctx.scratch,
        callbacks=[Reporter(ctx.events, tally, step_flops(1, total, trainable), peak_flops(device)), stopping],
        neftune_noise_alpha=config.neftune_noise_alpha,
        keeps_best=config.keeps_best,
        patience=config.early_stopping_patience,
    )
    trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    if stopping.is_early:
        raise Stopped(
            f"stopped by {ctx.stop.asked} after step {trainer.state.global_step} of {steps}, with a checkpoint",
            "the same command goes on from there",
        )
    if config.keeps_best:
        trainer.restore_best()
    trainer.require_finite()
    _save(ctx, model, tokenizer, start)
    _summarize(ctx, rows, validation, tally, trainer.state.global_step)


def _read(ctx: Context[SftConfig], split: str, limit: int | None = None) -> list[list[Row]]:
    """The rows of each data input."""
    sets = [read_split(item.path, split, RowType.MESSAGES, limit=limit) for item in ctx.many("data")]
    empty = [item.ref for item, found in zip(ctx.many("data"), sets, strict=True) if not found]
    if split == "train" and empty:
        raise BadData(
            f"{', '.join(empty)}: no train rows", "give prep more rows, or a smaller validation and test share"
        )
    return sets


def _load(ctx: Context[SftConfig], dtype: torch.dtype, device: torch.device) -> tuple[Any, Path | None]:
    """The model with what is to be trained in float32 and requiring gradients, the rest frozen; and where it is kept how
    adapters started, if that is needed to save them (`save_start`)."""
    config, source = ctx.config, ctx.one("model")
    packing = config.attn_implementation == "packed" or (
        config.attn_implementation == "auto" and not config.torch_compile
    )
    if not isinstance(config, LoraConfig):
        if is_adapter(source.path):
            raise UsageError(
                f"{source.ref} is an adapter; sft trains all weights of a whole model",
                "train it further with `ftcli lora`, or give sft the adapter's base",
            )
        model = load_base(source.path, torch.float32, device, packing=packing)
        _use_eager(config, model)
        return model, None
    quantization, double_quant = _quantization(config)
    base = load_base(
        (source.base or source).path, dtype, device, quantization, double_quant is not False, packing=packing
    )
    _use_eager(config, base)
    if source.base is None:
        adapted = add_lora(
            base,
            r=config.lora_r,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            target_modules=config.lora_target_modules,
            modules_to_save=config.lora_modules_to_save,
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
            init=config.init_lora_weights,
        )
        return adapted, save_start(adapted, ctx.scratch / "start")
    fit_vocabulary(base, source.path)
    model = load_adapter(base, source, trainable=True)
    widen_trained_modules(model)
    _check_adapter_settings(config, source, model.peft_config["default"])
    ctx.events.note(f"training the adapter {source.ref} further, with its own rank and target modules")
    return model, None


def _joined(parts: Iterable[Encoded]) -> Encoded:
    """All data inputs as one, in their order."""
    parts = list(parts)
    return Encoded(
        input_ids=[row for part in parts for row in part.input_ids],
        labels=[row for part in parts for row in part.labels],
        truncated=sum(part.truncated for part in parts),
        dropped_by=dict(sum((Counter(part.dropped_by) for part in parts), Counter[Dropped]())),
        labels_kept=sum(part.labels_kept for part in parts),
        labels_lost=sum(part.labels_lost for part in parts),
    )


def _mixture(ctx: Context[SftConfig], sets: list[Encoded]) -> list[tuple[range, float]]:
    """The rows of each data input, as they lie in `_joined`, with its weight; empty if rows count alike."""
    weights, labels = ctx.config.dataset_weights, [item.label for item in ctx.many("data")]
    if weights is None:
        return []
    if set(weights) != set(labels):
        raise UsageError(
            f"dataset_weights are for {', '.join(sorted(weights))}, and the data inputs are {', '.join(labels)}",
            "give each data input one weight; --data LABEL=REF names it",
        )
    ends = list(accumulate(len(part.lengths) for part in sets))
    return [
        (range(end - len(part.lengths), end), weights[label])
        for label, part, end in zip(labels, sets, ends, strict=True)
    ]


def _use_eager(config: SftConfig, model: Any) -> None:
    if config.attn_implementation == "eager":
        model.set_attn_implementation("eager")


def _quantization(config: LoraConfig) -> tuple[str | None, bool | None]:
    return ("nf4", config.double_quant) if isinstance(config, QloraConfig) else (None, None)


def _check_adapter_settings(config: LoraConfig, source: Artifact, adapter: Any) -> None:
    """An adapter brings its own shape, so a setting that contradicts it cannot be honoured."""
    brought = {
        "lora_r": adapter.r,
        "lora_alpha": adapter.lora_alpha,
        "lora_dropout": adapter.lora_dropout,
        "use_rslora": adapter.use_rslora,
        "use_dora": adapter.use_dora,
        "lora_modules_to_save": sorted(adapter.modules_to_save or []),
        "init_lora_weights": "trained weights",
    }
    given = non_default(config)
    if "lora_modules_to_save" in given:
        given["lora_modules_to_save"] = sorted(given["lora_modules_to_save"])
    wrong = [f"{name} {given[name]} (it has {own})" for name, own in brought.items() if given.get(name, own) != own]
    if "lora_target_modules" in given and set(config.lora_target_modules) != set(adapter.target_modules):
        wrong.append(f"lora_target_modules (it has {', '.join(sorted(adapter.target_modules))})")
    if wrong:
        raise UsageError(
            f"{source.ref} is an adapter already, which cannot take {'; '.join(wrong)}",
            "drop these settings to train it further, or give its base as the model to start anew",
        )


def _report_lengths(ctx: Context[SftConfig], rows: Encoded) -> None:
    limit = ctx.config.max_length
    if not rows.lengths:
        raise BadData(
            f"no row has a part of its answer within max_length {limit}", "raise max_length, or shorten prompts in prep"
        )
    if rows.truncated or rows.dropped:
        ctx.events.note(
            f"max_length {limit}: {rows.truncated} rows cut, {rows.dropped} left out, "
            f"{rows.share_lost:.1%} of answer tokens lost"
        )


def _report_choices(
    ctx: Context[SftConfig], choices: dict[str, Choice], micro: int, total: int, trainable: int
) -> None:
    """Say what was chosen and why, and record it now: what is tried after memory ran out depends on it."""
    used = [
        name if choice.value is True else f"{name} {choice.value}" for name, choice in choices.items() if choice.value
    ]
    without = [f"{name} ({choice.reason})" for name, choice in choices.items() if not choice.value]
    ctx.events.note(f"micro-batches of {micro} rows, {', '.join(used)}; without {', '.join(without)}")
    ctx.events.note(
        f"training {trainable:,} of {total:,} weights ({trainable / total:.2%}), 1 in {total / trainable:,.0f}"
    )
    ctx.events.summarize(
        {
            "micro_batch_size": micro,
            **{name: choice.value for name, choice in choices.items()},
            "reasons": {name: choice.reason for name, choice in choices.items()},
            "trainable_parameters": trainable,
            "total_parameters": total,
            "trainable_share": trainable / total,
        }
    )


def _columns(rows: Encoded) -> Dataset:
    tokens = Column(Value("int32"))
    return Dataset.from_dict(
        {"input_ids": rows.input_ids, "labels": rows.labels}, Features({"input_ids": tokens, "labels": tokens})
    )


def _save(ctx: Context[SftConfig], model: Any, tokenizer: Any, start: Path | None) -> None:
    config, source, folder = ctx.config, ctx.one("model"), ctx.output("model")
    tokenizer.save_pretrained(folder)
    if isinstance(config, LoraConfig):
        save_adapter(model, folder, start)
        write_base_record(folder, source.base or source, *_quantization(config))
    else:
        stored = AutoConfig.from_pretrained(source.path).dtype or torch.float32
        model.to(stored).save_pretrained(folder)


def _summarize(ctx: Context[SftConfig], rows: Encoded, validation: Encoded, tally: Tally, steps: int) -> None:
    last = {name: value for name, value in tally.last.items() if name in ("train/loss", "val/loss")}
    if ctx.config.keeps_best and tally.best:
        last["val/loss"] = tally.best.loss
        ctx.events.summarize({"best_step": tally.best.step})
    ctx.events.summarize(
        {
            **last,
            "steps": steps,
            "steps_dropped": tally.dropped,
            "loss_spikes": tally.spikes,
            "tokens": tally.tokens,
            "rows": len(rows.lengths),
            "rows_truncated": rows.truncated,
            "rows_dropped": rows.dropped,
            "labels_lost": rows.labels_lost,
            "labels_lost_share": rows.share_lost,
            "validation_rows": len(validation.lengths),
            "curves": {name: ctx.events.series(name) for name in ("train/loss", "val/loss")},
            "perf/seconds": round(tally.seconds, 3),
            "perf/tokens_per_s": round(tally.tokens / tally.seconds, 1),
        }
    )
    if ctx.config.report_to:
        shutil.copytree(ctx.scratch / TRACKING, ctx.out / TRACKING)


def _sizes(model: Any) -> tuple[int, int]:
    """All weights, and those that are trained."""
    every = list(model.parameters())
    return count_weights(every), count_weights(weight for weight in every if weight.requires_grad)
