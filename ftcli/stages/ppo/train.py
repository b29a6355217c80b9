"""PPO against a learned reward, read from top to bottom: roles on one frozen base -> held-out answers -> rollouts ->
held-out answers again.

The optimisation itself is `ftcli.rl.ppo`; here it gets its models, prompts and reward, its checkpoints, and the one
comparison that says whether it worked: the reward model's scores of sampled answers to the same held-out prompts,
before and after, with the KL beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftcli.core.artifacts import write_json
from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import render_prompt, stop_token_ids
from ftcli.data.rows import Row, RowType, prompt_of, read_split, write_jsonl
from ftcli.models.heads import rescale_head
from ftcli.models.load import (
    is_adapter,
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
from ftcli.rl.ppo import PpoSettings, PpoTrainer, Score
from ftcli.rl.reward_model import disable_dropout, read_stats
from ftcli.rl.rewards import ScoreScale, score_summary
from ftcli.rl.roles import LoraRoles, lora_roles
from ftcli.rl.rollout import Sampling
from ftcli.rl.sequences import Exchange
from ftcli.rl.statistics import Metrics
from ftcli.stages.ppo.config import PpoConfig
from ftcli.stages.ppo.held_out import Exam, compare, examine, sample_records
from ftcli.training.adapters import add_lora


@dataclass(frozen=True)
class Prompts:
    """Rows with distinct prompts, and the prompts' ids."""

    rows: list[Row]
    ids: list[list[int]]


@dataclass
class Progress:
    """What the loop has done; with the trainer's state it is the checkpoint."""

    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    """Policy loss of the last rollout."""


def train(ctx: Context[PpoConfig]) -> None:
    """Improve ``model`` against ``reward``; write the output ``model``. Continues from the checkpoint in scratch."""
    config, policy, reward = ctx.config, ctx.one("model"), ctx.one("reward")
    check_same_base(policy, reward)
    tokenizer = load_tokenizer_of(policy)
    prompts = _read_prompts(ctx, tokenizer, "train")
    any_validation = read_split(ctx.one("data").path, "validation", *_ROWS, limit=1)
    held_out = _read_prompts(ctx, tokenizer, "validation" if any_validation else "test", config.eval_prompts)

    torch.manual_seed(config.seed)  # a fresh adapter is random
    roles = _load_roles(ctx)
    pad_id = int(tokenizer.pad_token_id)
    stop_ids = stop_token_ids(tokenizer, roles.model.generation_config.eos_token_id)
    sampling = Sampling(stop_ids, pad_id, config.response_length, config.temperature, config.rollout_micro_batch_size)

    def score(exchanges: Sequence[Exchange]) -> list[float]:
        return roles.reward_model(pad_id).score_exchanges(exchanges, config.rollout_micro_batch_size)

    before = _before(ctx, roles, score, held_out, sampling)
    scale = _scale(ctx, before)
    if config.value_init == "reward":
        rescale_head(roles.value_head, scale.mean, scale.std)
    trainer = PpoTrainer(roles, score, prompts.ids, _settings(config, len(prompts.ids)), sampling, scale)
    progress = _fit(ctx, trainer, before)
    after = _examine(ctx, roles, score, held_out, sampling)
    ctx.events.metrics(trainer.rollout, {f"eval/{name}": value for name, value in after.summary().items()})
    _save(ctx, roles, tokenizer, sample_records(held_out.rows, before, after, tokenizer))
    _summarize(ctx, roles, progress, compare(before, after))


_ROWS = (RowType.MESSAGES, RowType.PROMPT, RowType.PREFERENCE)


def check_same_base(policy: Artifact, reward: Artifact) -> None:
    """Refuse a reward model that cannot share the policy's frozen base."""
    base = policy.base or policy
    if not is_adapter(reward.path) or reward.base is None:
        raise UsageError(f"{reward.ref}: no reward model with adapter and base", "give the output of `ftcli reward`")
    if reward.base.digest != base.digest:
        raise UsageError(
            f"{reward.ref}: this reward model's base is {reward.base.ref} ({reward.base.digest}), "
            f"the policy's is {base.ref} ({base.digest})",
            f"train a reward model for this policy: ftcli reward --model {policy.ref}",
        )
    own, other = (read_base_record(item.path).get("quantization") for item in (policy, reward))
    if own != other:
        raise UsageError(
            f"{reward.ref}: this reward model was trained on its base with quantization {other or 'none'}, the policy "
            f"with {own or 'none'}; they cannot share one",
            f"train a reward model for this policy: ftcli reward --model {policy.ref}",
        )


def _read_prompts(
    ctx: Context[PpoConfig], tokenizer: PreTrainedTokenizerBase, split: str, limit: int | None = None
) -> Prompts:
    """The first ``limit`` distinct prompts of a split that are short enough. Raises `BadData` where none is left."""
    data, longest = ctx.one("data"), ctx.config.max_prompt_length
    rows = read_split(data.path, split, *_ROWS)
    if not rows:
        missing = "train rows" if split == "train" else "validation rows and no test rows"
        raise BadData(f"{data.ref}: no {missing}", "give prep more rows, or larger validation and test shares")
    found: dict[tuple[int, ...], Row] = {}
    too_long = 0
    for row in rows:
        if len(found) == limit:
            break
        ids = tuple(render_prompt(tokenizer, prompt_of(row), tools=row.get("tools")))
        if len(ids) > longest:
            too_long += 1
        else:
            found.setdefault(ids, row)
    if not found:
        raise BadData(
            f"{data.ref}: each of the {too_long} {split} prompts has more than {longest} tokens",
            "raise max_prompt_length, or shorten prompts in prep",
        )
    if split != "train" and len(found) < 2:
        raise BadData(
            f"{data.ref}: one held-out prompt in {split}, at least 2 needed", "give prep a larger share for it"
        )
    told = f"; {too_long} left out with more than {longest} tokens" if too_long else ""
    ctx.events.note(f"{split}: {len(found)} prompts{told}")
    return Prompts(list(found.values()), [list(ids) for ids in found])


def _load_roles(ctx: Context[PpoConfig]) -> LoraRoles:
    config, policy, reward = ctx.config, ctx.one("model"), ctx.one("reward")
    device = pick_device()
    record = read_base_record(policy.path)
    base = load_base(
        (policy.base or policy).path,
        pick_dtype(config.precision, device),
        device,
        record.get("quantization"),
        record.get("double_quant", True),
        packing=True,
    )
    if policy.base is None:
        alpha = 2 * config.lora_r
        model = add_lora(base, r=config.lora_r, alpha=alpha, dropout=0.0, target_modules=("all-linear",))
    else:
        model = load_adapter(base, policy, trainable=True)
        if disable_dropout(model):
            ctx.events.note("dropout of the policy's adapter is off: with it, log-probs would not be the policy's")
    return lora_roles(model, is_fresh=policy.base is None, value_init=config.value_init, reward=reward.path)


def _settings(config: PpoConfig, prompts: int) -> PpoSettings:
    rollouts = (config.total_episodes or prompts) // config.rollout_batch_size
    total = max(rollouts, 1)
    return PpoSettings(
        total_rollouts=total,
        rollout_batch_size=config.rollout_batch_size,
        num_ppo_epochs=config.num_ppo_epochs,
        num_mini_batches=config.num_mini_batches,
        micro_batch_size=config.micro_batch_size,
        learning_rate=config.learning_rate,
        critic_learning_rate=config.critic_learning_rate or 5 * config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_rollouts=config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * total,
        max_grad_norm=config.max_grad_norm,
        kl_coef=config.kl_coef,
        kl_target=config.kl_target,
        kl_horizon=config.kl_horizon,
        lam=config.lam,
        cliprange=config.cliprange,
        cliprange_value=config.cliprange_value,
        reward_clip=config.reward_clip,
        missing_eos_penalty=config.missing_eos_penalty,
        early_stop_approxkl=config.early_stop_approxkl,
        seed=config.seed,
    )


def _examine(
    ctx: Context[PpoConfig],
    roles: LoraRoles,
    score: Score,
    held_out: Prompts,
    sampling: Sampling,
    *,
    at_start: bool = False,
) -> Exam:
    config, device = ctx.config, roles.value_head.weight.device
    rows = config.rollout_micro_batch_size
    return examine(roles, score, held_out.ids, sampling, config.seed, rows, device, at_start=at_start)


def _before(ctx: Context[PpoConfig], roles: LoraRoles, score: Score, held_out: Prompts, sampling: Sampling) -> Exam:
    """Answers of the starting policy, kept in scratch since a resumed run has it no more."""
    path = ctx.scratch / "before.json"
    if path.is_file():
        return Exam.from_json(json.loads(path.read_text(encoding="utf-8")))
    exam = _examine(ctx, roles, score, held_out, sampling, at_start=True)
    write_json(path, exam.to_json())
    return exam


def _scale(ctx: Context[PpoConfig], before: Exam) -> ScoreScale:
    """The fixed shift and scale of scores. Raises `UsageError` where all scores are alike: then there is nothing to
    learn."""
    kind = ctx.config.reward_normalization
    stats = read_stats(ctx.one("reward").path)
    if kind == "none":
        return ScoreScale()
    found = stats["chosen"] if kind == "reference" else score_summary(before.scores)
    if not found["std"] > 0:
        raise UsageError(
            f"{ctx.one('reward').ref}: this reward model gives every answer the score {found['mean']:g}",
            "train the reward model longer, or on other pairs",
        )
    ctx.events.note(f"scores are shifted by {-found['mean']:.3f} and divided by {found['std']:.3f} ({kind})")
    return ScoreScale(found["mean"], found["std"])


def _fit(ctx: Context[PpoConfig], trainer: PpoTrainer, before: Exam) -> Progress:
    """The loop over rollouts, with a checkpoint between them."""
    total = trainer.settings.total_rollouts
    state = load_checkpoint(ctx.scratch)
    progress = Progress()
    if state is None:
        ctx.events.rewind(-1)
        ctx.events.metrics(0, {f"eval/{name}": value for name, value in before.summary().items()})
    else:
        trainer.load_state_dict(state["trainer"])
        progress = Progress(**state["progress"])
        ctx.events.rewind(trainer.rollout)
        ctx.events.note(f"going on after rollout {trainer.rollout} of {total}")
    while not trainer.is_done:
        start = time.perf_counter()
        metrics = trainer.step()
        progress = _advance(progress, metrics, trainer, time.perf_counter() - start)
        ctx.events.metrics(trainer.rollout, metrics)
        ctx.events.progress(
            "ppo",
            trainer.rollout,
            total,
            score=metrics["objective/scores"],
            kl=metrics["objective/kl"],
            length=metrics["rollout/length_mean"],
            seconds=time.perf_counter() - start,
        )
        if trainer.rollout % ctx.config.save_steps == 0 and not trainer.is_done:
            save_checkpoint(ctx.scratch, {"trainer": trainer.state_dict(), "progress": vars(progress)})
    return progress


def _advance(progress: Progress, metrics: Metrics, trainer: PpoTrainer, seconds: float) -> Progress:
    tokens = round(float(metrics["rollout/length_mean"] or 0) * trainer.settings.rollout_batch_size)
    return Progress(progress.tokens + tokens, progress.seconds + seconds, metrics["loss/policy_avg"])


def _save(
    ctx: Context[PpoConfig], roles: LoraRoles, tokenizer: PreTrainedTokenizerBase, samples: list[dict[str, Any]]
) -> None:
    policy, folder = ctx.one("model"), ctx.output("model")
    record = read_base_record(policy.path)
    save_adapter(roles.sampler(), folder)
    tokenizer.save_pretrained(folder)
    write_base_record(folder, policy.base or policy, record.get("quantization"), record.get("double_quant"))
    write_jsonl(folder / "samples.jsonl", samples)


def _summarize(
    ctx: Context[PpoConfig], roles: LoraRoles, progress: Progress, changes: dict[str, float | int | None]
) -> None:
    trained = [*roles.policy_parameters(), *roles.value_parameters(), *roles.head_parameters()]
    trainable = sum(weight.numel() for weight in trained)
    total = roles.model.get_nb_trainable_parameters()[1] + sum(weight.numel() for weight in roles.head_parameters())
    z = changes["eval/score_change_z"]
    ctx.events.note(
        f"mean score of held-out samples {changes['eval/score_before']:.3f} -> {changes['eval/score_after']:.3f} "
        f"(change {changes['eval/score_change']:+.3f}, standard error {changes['eval/score_change_se']:.3f}"
        + (f", z {z:.1f})" if z is not None else ")")
        + f" at KL {changes['eval/kl']:.2f}"
    )
    ctx.events.summarize(
        {
            **changes,
            "start_digest": ctx.one("model").digest,
            "curves": {name: ctx.events.series(name) for name in ("objective/scores", "objective/kl")},
            "train/loss": progress.loss,
            "trainable_parameters": trainable,
            "total_parameters": total,
            "trainable_share": trainable / total,
            "tokens": progress.tokens,
            "perf/seconds": round(progress.seconds, 3),
            "perf/tokens_per_s": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        }
    )
