"""Train a reward model, read from top to bottom: rows -> pairs of each prompt -> backbone and head -> loop -> held-out
judgement.

Bradley-Terry model (Ouyang et al. 2022, arXiv 2203.02155, eq. 1): a backbone, of which an adapter or all weights are
trained, and a float32 scalar head, read at the end-of-turn token through the function that PPO scores with. A plain
loop instead of TRL's RewardTrainer, which reads the last token that is not the padding id (another token where padding
and end of turn share an id), drops long rows in silence and treats the pairs of one prompt as independent. The loss of
a step is a sum divided by the weight of the whole step, so that micro-batches change nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from ftcli.core.artifacts import write_json
from ftcli.core.config import non_default
from ftcli.core.errors import Diverged, Stopped
from ftcli.core.stage import Context
from ftcli.data.chat import generation_eos, stop_token_ids
from ftcli.data.pairs import Encoded
from ftcli.models.generate import row_seed
from ftcli.models.heads import save_head
from ftcli.models.load import load_tokenizer_of, save_adapter, write_base_record
from ftcli.rl.checkpoint import load_checkpoint, save_checkpoint
from ftcli.rl.judged import Judged
from ftcli.rl.preferences import Comparison, comparison_loss, flatten_pairs, weight_of, wins
from ftcli.rl.reward_card import reward_card, reward_gate
from ftcli.rl.reward_model import STATS_FILE, RewardModel
from ftcli.rl.schedule import lr_factor
from ftcli.rl.sequences import collate, micro_batches
from ftcli.rl.stability import other_format, score_stability
from ftcli.stages.reward.config import RewardConfig, learning_rates
from ftcli.stages.reward.encode import comparisons, encode, read_rows
from ftcli.stages.reward.judge import judge
from ftcli.stages.reward.learner import Learner, load_learner
from ftcli.stages.reward.report import provenance, write_report
from ftcli.training.start import Start


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
    torch.manual_seed(config.seed)  # a new adapter is random
    train_rows, held_out_rows, split = read_rows(ctx)
    tokenizer = load_tokenizer_of(source)
    stop_ids = stop_token_ids(tokenizer, generation_eos((source.base or source).path))
    pairs = encode(ctx, tokenizer, stop_ids, "train", train_rows)
    held_out = encode(ctx, tokenizer, stop_ids, split, held_out_rows)
    learner = load_learner(config, source, int(tokenizer.pad_token_id), pairs.ties / pairs.pairs)
    _report(ctx, learner)

    progress = _fit(ctx, learner, comparisons(pairs))
    stats = _judge_and_save(ctx, learner, tokenizer, comparisons(held_out), split)
    _summarize(ctx, pairs, held_out, stats, progress)


def _fit(ctx: Context[RewardConfig], learner: Learner, prompts: list[Comparison]) -> Progress:
    """The training loop."""
    config = ctx.config
    weights = list(learner.weights.values())
    optimizer = learner.optimizer(config)
    steps_per_epoch = math.ceil(len(prompts) / config.global_batch_size)
    total = config.max_steps or math.ceil(config.num_train_epochs * steps_per_epoch)
    warmup = config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * total
    progress = _resume(ctx, learner, optimizer)
    ctx.events.rewind(progress.step)

    while progress.step < total:
        if ctx.stop.asked:
            _checkpoint(ctx, learner, optimizer, progress)
            raise Stopped(
                f"stopped by {ctx.stop.asked} after step {progress.step} of {total}, with a checkpoint",
                "the same command goes on from there",
            )
        start = time.perf_counter()
        chosen = _batch(prompts, progress.step, steps_per_epoch, config)
        factor = lr_factor(progress.step, total, config.lr_scheduler_type, warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        loss, margins = _accumulate(learner, chosen, config)
        norm = float(torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm))
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
        accuracy = wins(margins) / len(margins) if margins else None  # a step may have nothing but ties
        ctx.events.metrics(
            progress.step,
            {
                "train/loss": loss,
                "train/accuracy": accuracy,
                "train/margin": sum(margins) / len(margins) if margins else None,
                "train/grad_norm": norm,
                "train/learning_rate": optimizer.param_groups[0]["lr"],
                **({} if learner.log_nu is None else {"train/nu": float(learner.log_nu.exp())}),
                "perf/tokens_per_s": tokens / seconds,
            },
        )
        ctx.events.progress("reward", progress.step, total, loss=loss, accuracy=accuracy, tokens_per_s=tokens / seconds)
        if progress.step % config.save_steps == 0 and progress.step < total:
            _checkpoint(ctx, learner, optimizer, progress)
    return progress


def _batch(prompts: list[Comparison], step: int, steps_per_epoch: int, config: RewardConfig) -> list[Comparison]:
    """The prompts of one step; their order is a new permutation in each epoch."""
    epoch, place = divmod(step, steps_per_epoch)
    generator = torch.Generator().manual_seed(row_seed(config.seed, f"prompts/{epoch}"))
    order = torch.randperm(len(prompts), generator=generator).tolist()
    first = place * config.global_batch_size
    return [prompts[index] for index in order[first : first + config.global_batch_size]]


def _accumulate(learner: Learner, chosen: Sequence[Comparison], config: RewardConfig) -> tuple[float, list[float]]:
    """Gradients of one step, micro-batch by micro-batch; return its loss and by how much winners outscore losers."""
    model = learner.reward
    device = model.head.weight.device
    total = weight_of(chosen, config.pair_weighting)
    loss, margins = 0.0, []
    lengths = [max(len(exchange) for exchange in one.exchanges) for one in chosen]
    for micro in micro_batches(lengths, range(len(chosen)), config.micro_batch_size):
        part = [chosen[index] for index in micro]
        batch = collate([exchange for one in part for exchange in one.exchanges], model.pad_id, device)
        with learner.autocast():
            scores = model.score(batch)
        pairs = flatten_pairs(part, device, config.pair_weighting)
        part_loss = comparison_loss(
            scores, pairs, config.center_rewards_coefficient, config.label_smoothing, learner.log_nu
        )
        (part_loss / total).backward()
        loss += float(part_loss.detach()) / total
        margins += (scores[pairs.winners] - scores[pairs.losers])[~pairs.is_tie].detach().tolist()
    return loss, margins


def _checkpoint(
    ctx: Context[RewardConfig], learner: Learner, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    weights = {name: weight.detach() for name, weight in learner.weights.items()}
    save_checkpoint(ctx.scratch, {"progress": vars(progress), "weights": weights, "optimizer": optimizer.state_dict()})


def _resume(ctx: Context[RewardConfig], learner: Learner, optimizer: torch.optim.Optimizer) -> Progress:
    state = load_checkpoint(ctx.scratch)
    if state is None:
        return Progress()
    learner.restore(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    progress = Progress(**state["progress"])
    ctx.events.note(f"going on after step {progress.step}")
    return progress


def _judge_and_save(
    ctx: Context[RewardConfig],
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    held_out: list[Comparison],
    split: str,
) -> dict[str, Any]:
    """Write the output ``reward``, judged as it is written, and the report on it, and return the judgement."""
    source, folder, start = ctx.one("model"), ctx.output("reward"), learner.start
    if start.is_whole:
        start.model.to(AutoConfig.from_pretrained(source.path).dtype or torch.float32)
    batch_size = 2 * ctx.config.micro_batch_size
    with learner.autocast():
        judged = _centred(learner.reward, judge(learner.reward, held_out, batch_size))
    scoring = {"max_length": ctx.config.max_length, "precision": "bf16" if learner.dtype is torch.bfloat16 else "fp32"}
    stats = {"split": split, **reward_card(judged, seed=ctx.config.seed), "scoring": scoring}
    if learner.log_nu is not None:
        stats["davidson_nu"] = float(learner.log_nu.exp())
    if start.is_whole:
        start.model.save_pretrained(folder)
    else:
        save_adapter(start.model, folder)
        write_base_record(folder, source.base or source, start.quantization, start.double_quant)
    save_head(folder, learner.reward.head)
    tokenizer.save_pretrained(folder)
    write_json(folder / STATS_FILE, stats)
    about = provenance(source, ctx.one("data"), non_default(ctx.config), {"trained": _trained(start)})
    stability = score_stability(learner.reward, held_out, other_format(learner.reward))
    card = {**stats, "stability": stability, "about": about}
    write_report(ctx.output("report"), card, held_out, judged, tokenizer)
    return stats


def _centred(model: RewardModel, judged: Sequence[Judged]) -> list[Judged]:
    """Shift ``model``'s scores, which the loss leaves free by a constant, so that held-out winners have mean 0 (Huang et al. 2024,
    arXiv 2403.17031, detail 15); return ``judged`` with its scores shifted likewise."""
    mean = fmean(one.scores[index] for one in judged for index in {winner for winner, _ in one.pairs})
    model.head.bias.data -= mean
    return [replace(one, scores=[score - mean for score in one.scores]) for one in judged]


def _report(ctx: Context[RewardConfig], learner: Learner) -> None:
    """Say what is trained, and record what is tried with less after memory ran out (`leaner`)."""
    start = learner.start
    trainable, total = learner.sizes()
    backbone, head = learning_rates(ctx.config, is_whole=start.is_whole)
    ctx.events.note(
        f"training {_trained(start)} and a head, {trainable:,} of {total:,} weights ({trainable / total:.2%}); "
        f"learning rate {backbone:g}, head {head:g}"
    )
    ctx.events.summarize(
        {
            "micro_batch_size": ctx.config.micro_batch_size,
            "trainable_parameters": trainable,
            "total_parameters": total,
            "trainable_share": trainable / total,
        }
    )


def _trained(start: Start) -> str:
    return "all weights" if start.is_whole else "a new adapter" if start.is_fresh else "the policy's adapter"


def _summarize(
    ctx: Context[RewardConfig],
    pairs: Encoded,
    held_out: Encoded,
    stats: dict[str, Any],
    progress: Progress,
) -> None:
    baseline = max(stats["longer_wins_accuracy"], stats["shorter_wins_accuracy"])
    ctx.events.note(
        f"held-out accuracy {stats['accuracy']:.3f} ({stats['accuracy_low']:.3f} to {stats['accuracy_high']:.3f}) on "
        f"{stats['pairs']} pairs; length alone gives {baseline:.3f}"
    )
    if reason := reward_gate(stats):
        ctx.events.note(f"warning: PPO must not use this reward model: {reason}")
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
            "val/ece": stats["calibration"]["ece"],
            "val/length_spearman": stats["length_bias"]["spearman"],
            "val/chosen_mean": stats["chosen"]["mean"],
            "val/rejected_mean": stats["rejected"]["mean"],
            "steps": progress.step,
            "tokens": progress.tokens,
            "perf/seconds": round(progress.seconds, 3),
            "perf/tokens_per_s": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        }
    )
