"""Supervised fine-tuning, read from top to bottom: rows -> tokens -> model -> trainer -> a plain HF or PEFT folder.

Loss on the assistant's tokens only, through their end-of-turn token. What is trained is always float32: a bfloat16
weight of size 0.1 cannot take an update below 2.4e-4, and AdamW's are about the learning rate. So with precision bf16,
sft keeps float32 weights and computes in bfloat16 by autocast, while lora holds the frozen weights in bfloat16 and
qlora in 4 bits (arXiv 2305.14314).
"""

from __future__ import annotations

import shutil
from typing import Any

import torch
from datasets import Dataset, Features, Value
from datasets import Sequence as Column
from transformers import AutoConfig, set_seed
from trl import SFTConfig

from ftcli.core.config import non_default
from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import stop_token_ids
from ftcli.data.rows import RowType, read_split
from ftcli.models.load import (
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
from ftcli.stages.sft.config import LoraConfig, QloraConfig, SftConfig
from ftcli.stages.sft.encode import Encoded, encode
from ftcli.training import checkpoints
from ftcli.training.adapters import add_lora
from ftcli.training.batches import derive_micro_batch, row_order, total_steps
from ftcli.training.callbacks import Reporter
from ftcli.training.tally import Tally
from ftcli.training.trainer import AnswerTrainer


def train(ctx: Context[SftConfig]) -> None:
    """Train ``model`` on ``data``; write the output ``model``. Continues from the newest checkpoint in scratch."""
    config, source = ctx.config, ctx.one("model")
    device = pick_device()
    dtype = pick_dtype(config.precision, device)

    train_rows = read_split(ctx.one("data").path, "train", RowType.MESSAGES)
    val_rows = read_split(ctx.one("data").path, "validation", RowType.MESSAGES, limit=config.eval_rows)
    if not train_rows:
        raise BadData(
            f"{ctx.one('data').ref}: no train rows", "give prep more rows, or a smaller validation and test share"
        )

    tokenizer = load_tokenizer_of(source)
    set_seed(config.seed)  # new adapters are random
    model = _load(ctx, dtype, device)
    stop_ids = stop_token_ids(tokenizer, model.generation_config.eos_token_id)
    rows = encode(tokenizer, train_rows, stop_ids, config.max_length)
    validation = encode(tokenizer, val_rows, stop_ids, config.max_length)
    _report_lengths(ctx, rows)

    steps = total_steps(len(rows.lengths), config.global_batch_size, config.num_train_epochs, config.max_steps)
    order = row_order(rows.lengths, config.global_batch_size, steps, config.seed)
    micro = config.micro_batch_size or derive_micro_batch(
        [rows.lengths[row] for row in order], config.global_batch_size, device, packed=takes_packed_rows(model)
    )
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
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=dtype is torch.bfloat16 and not isinstance(config, LoraConfig),
        use_cpu=device.type == "cpu",
        gradient_checkpointing=config.gradient_checkpointing,
        use_cache=model.config.use_cache,  # else the trainer would change what is saved
        eval_strategy="steps" if validation.lengths else "no",
        eval_steps=config.eval_steps or steps,
        save_strategy="steps" if config.save_steps < steps else "no",
        save_steps=config.save_steps,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=device.type != "cpu",
        report_to="none",
        disable_tqdm=True,
    )
    resume = checkpoints.newest(ctx.scratch / "checkpoints")
    tally = Tally.from_json(resume[2]) if resume else Tally()
    ctx.events.rewind(resume[1] if resume else 0)
    if resume:
        ctx.events.note(f"going on after step {resume[1]} of {steps}")
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        train=_columns(rows).select(order),
        validation=_columns(validation) if validation.lengths else None,
        tokenizer=tokenizer,
        tally=tally,
        checkpoint_folder=ctx.scratch / "checkpoints",
        callbacks=[Reporter(ctx.events, tally)],
    )
    trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    _save(ctx, model, tokenizer)
    _summarize(ctx, model, rows, validation, tally)


def _load(ctx: Context[SftConfig], dtype: torch.dtype, device: torch.device) -> Any:
    """The model with what is to be trained in float32 and requiring gradients, the rest frozen."""
    config, source = ctx.config, ctx.one("model")
    if not isinstance(config, LoraConfig):
        if is_adapter(source.path):
            raise UsageError(
                f"{source.ref} is an adapter; sft trains all weights of a whole model",
                "train it further with `ftcli lora`, or give sft the adapter's base",
            )
        return load_base(source.path, torch.float32, device, packing=True)
    quantization, double_quant = _quantization(config)
    base = load_base((source.base or source).path, dtype, device, quantization, double_quant is not False, packing=True)
    if source.base is None:
        return add_lora(
            base,
            r=config.lora_r,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            target_modules=config.lora_target_modules,
        )
    model = load_adapter(base, source, trainable=True)
    _check_adapter_settings(config, source, model.peft_config["default"])
    ctx.events.note(f"training the adapter {source.ref} further, with its own rank and target modules")
    return model


def _quantization(config: LoraConfig) -> tuple[str | None, bool | None]:
    return ("nf4", config.double_quant) if isinstance(config, QloraConfig) else (None, None)


def _check_adapter_settings(config: LoraConfig, source: Artifact, adapter: Any) -> None:
    """An adapter brings its own shape, so a setting that contradicts it cannot be honoured."""
    brought = {"lora_r": adapter.r, "lora_alpha": adapter.lora_alpha, "lora_dropout": adapter.lora_dropout}
    given = non_default(config)
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
        share = rows.labels_lost / (rows.labels_kept + rows.labels_lost)
        ctx.events.note(
            f"max_length {limit}: {rows.truncated} rows cut, {rows.dropped} dropped, {share:.1%} of answer tokens lost"
        )


def _columns(rows: Encoded) -> Dataset:
    tokens = Column(Value("int32"))
    return Dataset.from_dict(
        {"input_ids": rows.input_ids, "labels": rows.labels}, Features({"input_ids": tokens, "labels": tokens})
    )


def _save(ctx: Context[SftConfig], model: Any, tokenizer: Any) -> None:
    config, source, folder = ctx.config, ctx.one("model"), ctx.output("model")
    tokenizer.save_pretrained(folder)
    if isinstance(config, LoraConfig):
        save_adapter(model, folder)
        write_base_record(folder, source.base or source, *_quantization(config))
    else:
        stored = AutoConfig.from_pretrained(source.path).dtype or torch.float32
        model.to(stored).save_pretrained(folder)


def _summarize(ctx: Context[SftConfig], model: Any, rows: Encoded, validation: Encoded, tally: Tally) -> None:
    weights = [(_size(weight), weight.requires_grad) for weight in model.parameters()]
    total = sum(size for size, _ in weights)
    trainable = sum(size for size, trains in weights if trains)
    ctx.events.summarize(
        {
            **{name: value for name, value in tally.last.items() if name in ("train/loss", "val/loss")},
            "trainable_parameters": trainable,
            "total_parameters": total,
            "trainable_share": trainable / total,
            "tokens": tally.tokens,
            "rows": len(rows.lengths),
            "rows_truncated": rows.truncated,
            "rows_dropped": rows.dropped,
            "labels_lost": rows.labels_lost,
            "validation_rows": len(validation.lengths),
            "curves": {name: ctx.events.series(name) for name in ("train/loss", "val/loss")},
            "perf/seconds": round(tally.seconds, 3),
            "perf/tokens_per_s": round(tally.tokens / tally.seconds, 1),
        }
    )


def _size(weight: torch.nn.Parameter) -> int:
    """Parameters in ``weight``; a 4-bit one stores two in a byte."""
    return weight.numel() * (2 * weight.element_size() if hasattr(weight, "quant_state") else 1)
