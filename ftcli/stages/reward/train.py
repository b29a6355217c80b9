"""Train a reward model, read from top to bottom: pairs -> comparisons -> adapter and head -> loop -> held-out
judgement.

Bradley-Terry model (Ouyang et al. 2022, arXiv 2203.02155, eq. 1): a LoRA adapter and a float32 scalar head on the
policy's frozen base, read at the end-of-turn token through the function that PPO scores with. A plain loop instead of
TRL's RewardTrainer, which reads the last token that is not the padding id (another token where padding and end of
turn share an id), drops long rows in silence and treats the pairs of one prompt as independent. The loss of a step is
a sum divided by the prompts of the whole step, so that micro-batches change nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedTokenizerBase

from ftcli.core.artifacts import write_json
from ftcli.core.config import non_default
from ftcli.core.errors import BadData, Diverged, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import stop_token_ids
from ftcli.data.rows import RowType, read_split
from ftcli.models.generate import row_seed
from ftcli.models.heads import random_head, save_head
from ftcli.models.load import (
    load_adapter,
    load_base,
    load_tokenizer_of,
    pick_device,
    pick_dtype,
    read_base_record,
    save_adapter,
    write_base_record,
)
from ftcli.rl.checkpoint import load_checkpoint, save_checkpoint
from ftcli.rl.preferences import Comparison, comparison_loss, flatten_pairs, wins
from ftcli.rl.reward_model import STATS_FILE, RewardModel, disable_dropout
from ftcli.rl.schedule import lr_factor
from ftcli.rl.sequences import collate, micro_batches
from ftcli.stages.reward.config import RewardConfig
from ftcli.stages.reward.judge import judge
from ftcli.stages.reward.pairs import Encoded, encode_pairs
from ftcli.training.adapters import add_lora


@dataclass
class Progress:
    """What the loop has done; with weights and optimizer it is the checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    """Loss of the last step."""


def train(ctx: Context[RewardConfig]) -> None:
    """Train on ``data`` and write the output ``reward``. Continues from the checkpoint in scratch."""
    config, source = ctx.config, ctx.one("model")
    torch.manual_seed(config.seed)
    tokenizer = load_tokenizer_of(source)
    model = _load(ctx, tokenizer)
    stop_ids = stop_token_ids(tokenizer, model.model.generation_config.eos_token_id)
    pairs = _encode(ctx, tokenizer, stop_ids, "train")
    split = "validation" if read_split(ctx.one("data").path, "validation", RowType.PREFERENCE, limit=1) else "test"
    held_out = _encode(ctx, tokenizer, stop_ids, split)

    progress = _fit(ctx, model, pairs.comparisons)
    stats = {"split": split, **judge(model, held_out.comparisons, 2 * config.micro_batch_size)}
    _save(ctx, model, tokenizer, stats)
    _summarize(ctx, model, pairs, held_out, stats, progress)


def _load(ctx: Context[RewardConfig], tokenizer: PreTrainedTokenizerBase) -> RewardModel:
    """The policy's base with a trainable adapter and a new head, dropout off."""
    config, source = ctx.config, ctx.one("model")
    device = pick_device()
    record = read_base_record(source.path)
    base = load_base(
        (source.base or source).path,
        pick_dtype(config.precision, device),
        device,
        record.get("quantization"),
        record.get("double_quant", True),
        packing=True,
    )
    if source.base is not None and config.init_from == "policy":
        model = load_adapter(base, source, trainable=True)
        _check_adapter_settings(config, source, model.peft_config["default"])
    else:
        model = add_lora(base, r=config.lora_r, alpha=config.lora_alpha, dropout=0.0, target_modules=("all-linear",))
    disable_dropout(model)
    head = random_head(base.config.get_text_config().hidden_size, config.seed).to(device)
    return RewardModel(model.eval(), head, int(tokenizer.pad_token_id))


def _check_adapter_settings(config: RewardConfig, source: Artifact, adapter: Any) -> None:
    """An adapter that is copied brings its own shape, so a setting that contradicts it cannot be honoured."""
    given = non_default(config)
    wrong = [
        f"{name} {given[name]} (it has {own})"
        for name, own in (("lora_r", adapter.r), ("lora_alpha", adapter.lora_alpha))
        if given.get(name, own) != own
    ]
    if wrong:
        raise UsageError(
            f"the reward model starts as a copy of the adapter {source.ref}, which cannot take {', '.join(wrong)}",
            "drop these settings, or set init_from to base for a new adapter",
        )


def _encode(
    ctx: Context[RewardConfig], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int], split: str
) -> Encoded:
    """Comparisons of one split; what was cut or left out is said aloud. Raises `BadData` where nothing is left."""
    config, data = ctx.config, ctx.one("data")
    rows = read_split(data.path, split, RowType.PREFERENCE)
    if not rows:
        wanted = "train rows" if split == "train" else "validation rows and no test rows"
        raise BadData(
            f"{data.ref}: no {wanted}",
            "preference rows come from `ftcli sample`, or from raw pairs through `ftcli prep`",
        )
    found = encode_pairs(tokenizer, rows, stop_ids, config.max_length, config.overlong)
    lost = {name: count for name, count in found.counts().items() if count and name not in ("pairs", "prompts")}
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in lost.items())
    if not found.pairs:
        raise BadData(
            f"{data.ref}: none of the {len(rows)} {split} pairs can be used: {told}",
            f"raise max_length (now {config.max_length})" if found.overlong else "chosen and rejected must differ",
        )
    ctx.events.note(f"{split}: {found.pairs} pairs of {len(found.comparisons)} prompts" + (f"; {told}" if told else ""))
    return found


def _fit(ctx: Context[RewardConfig], model: RewardModel, comparisons: list[Comparison]) -> Progress:
    """The training loop."""
    config = ctx.config
    parameters = [weight for weight in model.model.parameters() if weight.requires_grad] + list(model.head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    steps_per_epoch = math.ceil(len(comparisons) / config.global_batch_size)
    total = config.max_steps or math.ceil(config.num_train_epochs * steps_per_epoch)
    warmup = config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * total
    progress = _resume(ctx, model, optimizer)
    ctx.events.rewind(progress.step)

    while progress.step < total:
        start = time.perf_counter()
        chosen = _batch(comparisons, progress.step, steps_per_epoch, config)
        factor = lr_factor(progress.step, total, config.lr_scheduler_type, warmup)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        loss, margins = _accumulate(model, chosen, config)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"step {progress.step + 1}: loss {loss:g} and gradient norm {norm:g}, not finite",
                "lower learning_rate or lengthen warmup_steps; with precision bf16, try fp32",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        seconds = time.perf_counter() - start
        tokens = sum(len(exchange) for one in chosen for exchange in one.exchanges)
        progress = Progress(progress.step + 1, progress.tokens + tokens, progress.seconds + seconds, loss)
        accuracy = wins(margins) / len(margins)
        ctx.events.metrics(
            progress.step,
            {
                "train/loss": loss,
                "train/accuracy": accuracy,
                "train/margin": sum(margins) / len(margins),
                "train/grad_norm": norm,
                "train/learning_rate": config.learning_rate * factor,
                "perf/tokens_per_s": tokens / seconds,
            },
        )
        ctx.events.progress("reward", progress.step, total, loss=loss, accuracy=accuracy, tokens_per_s=tokens / seconds)
        if progress.step % config.save_steps == 0 and progress.step < total:
            _checkpoint(ctx, model, optimizer, progress)
    return progress


def _batch(comparisons: list[Comparison], step: int, steps_per_epoch: int, config: RewardConfig) -> list[Comparison]:
    """The prompts of one step; their order is a new permutation in each epoch."""
    epoch, place = divmod(step, steps_per_epoch)
    generator = torch.Generator().manual_seed(row_seed(config.seed, f"prompts/{epoch}"))
    order = torch.randperm(len(comparisons), generator=generator).tolist()
    first = place * config.global_batch_size
    return [comparisons[index] for index in order[first : first + config.global_batch_size]]


def _accumulate(model: RewardModel, chosen: Sequence[Comparison], config: RewardConfig) -> tuple[float, list[float]]:
    """Gradients of one step, micro-batch by micro-batch; return its loss and the margins of its pairs."""
    device = model.head.weight.device
    loss, margins = 0.0, []
    lengths = [max(len(exchange) for exchange in one.exchanges) for one in chosen]
    for micro in micro_batches(lengths, range(len(chosen)), config.micro_batch_size):
        part = [chosen[index] for index in micro]
        scores = model.score(collate([exchange for one in part for exchange in one.exchanges], model.pad_id, device))
        pairs = flatten_pairs(part, device)
        part_loss = comparison_loss(scores, pairs, config.center_rewards_coefficient) / len(chosen)
        part_loss.backward()
        loss += float(part_loss.detach())
        margins += (scores[pairs.winners] - scores[pairs.losers]).detach().tolist()
    return loss, margins


def _checkpoint(
    ctx: Context[RewardConfig], model: RewardModel, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    state = {
        "progress": vars(progress),
        "adapter": get_peft_model_state_dict(model.model, save_embedding_layers=False),
        "head": model.head.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    save_checkpoint(ctx.scratch, state)


def _resume(ctx: Context[RewardConfig], model: RewardModel, optimizer: torch.optim.Optimizer) -> Progress:
    state = load_checkpoint(ctx.scratch)
    if state is None:
        return Progress()
    set_peft_model_state_dict(model.model, state["adapter"])
    model.head.load_state_dict(state["head"])
    optimizer.load_state_dict(state["optimizer"])
    progress = Progress(**state["progress"])
    ctx.events.note(f"going on after step {progress.step}")
    return progress


def _save(
    ctx: Context[RewardConfig], model: RewardModel, tokenizer: PreTrainedTokenizerBase, stats: dict[str, Any]
) -> None:
    source, folder = ctx.one("model"), ctx.output("reward")
    record = read_base_record(source.path)
    save_adapter(model.model, folder)
    save_head(folder, model.head)
    tokenizer.save_pretrained(folder)
    write_base_record(folder, source.base or source, record.get("quantization"), record.get("double_quant"))
    write_json(folder / STATS_FILE, stats)


def _summarize(
    ctx: Context[RewardConfig],
    model: RewardModel,
    pairs: Encoded,
    held_out: Encoded,
    stats: dict[str, Any],
    progress: Progress,
) -> None:
    trainable, total = model.model.get_nb_trainable_parameters()
    head = sum(weight.numel() for weight in model.head.parameters())
    baseline = max(stats["longer_wins_accuracy"], stats["shorter_wins_accuracy"])
    ctx.events.note(
        f"held-out accuracy {stats['accuracy']:.3f} ({stats['accuracy_low']:.3f} to {stats['accuracy_high']:.3f}) on "
        f"{stats['pairs']} pairs; length alone gives {baseline:.3f}"
    )
    if stats["accuracy_low"] <= baseline:
        ctx.events.note(
            "warning: not clearly better than judging by length; PPO on it may learn length and little else"
        )
    ctx.events.summarize(
        {
            "train/loss": progress.loss,
            "val/loss": stats["log_loss"],
            **{
                f"val/{name}": value
                for name, value in stats.items()
                if isinstance(value, int | float) and name != "log_loss"
            },
            **{f"train/{name}": count for name, count in pairs.counts().items()},
            **{f"val/{name}": count for name, count in held_out.counts().items()},
            "val/chosen_mean": stats["chosen"]["mean"],
            "val/rejected_mean": stats["rejected"]["mean"],
            "trainable_parameters": trainable + head,
            "total_parameters": total + head,
            "trainable_share": (trainable + head) / (total + head),
            "steps": progress.step,
            "tokens": progress.tokens,
            "perf/seconds": round(progress.seconds, 3),
            "perf/tokens_per_s": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        }
    )
