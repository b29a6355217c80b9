"""PPO, read from top to bottom: roles on one frozen base -> held-out answers -> rollouts -> held-out answers again.

The optimisation itself is `ftcli.rl.ppo`; here it gets its models (`models`), prompts, rewards (`rewards`), checkpoints, guards
and samples through training, and the one comparison that says whether it worked: scores of sampled answers to the same held-out
prompts, before and after, with the KL beside it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from ftcli.core.artifacts import write_json
from ftcli.core.config import non_default
from ftcli.core.errors import BadData, Diverged, Stopped, UsageError
from ftcli.core.stage import Context
from ftcli.data.chat import render_prompt, stop_token_ids
from ftcli.data.rows import RowType, prompt_of, read_split
from ftcli.models.heads import rescale_head
from ftcli.models.load import load_tokenizer_of, pick_device, save_adapter, write_base_record
from ftcli.models.quantize import count_weights
from ftcli.rl.checkpoint import load_checkpoint, save_checkpoint
from ftcli.rl.engines import HfEngine, RolloutEngine, VllmServerEngine
from ftcli.rl.guards import Guards, GuardSettings
from ftcli.rl.ppo import PpoSettings, PpoTrainer
from ftcli.rl.ranks import Ranks, ranks_from_environment, single
from ftcli.rl.reward_sources import RewardSource, compose
from ftcli.rl.rollout import Sampling
from ftcli.rl.sequences import Prompt
from ftcli.rl.statistics import Metrics
from ftcli.stages.ppo.config import PpoConfig
from ftcli.stages.ppo.held_out import Exam, Examiner, compare
from ftcli.stages.ppo.models import Models, load_models
from ftcli.stages.ppo.report import save_figures, write_report
from ftcli.stages.ppo.rewards import check_rewards, functions, reference_p99, score_scale, with_learned
from ftcli.stages.ppo.summary import number, signed
from ftcli.stages.ppo.watch import Watch
from ftcli.training.checkpoints import require_space

CURVES = ("objective/scores", "objective/kl", "rollout/length_mean", "policy/entropy_avg")
LOOKS = 5
"""How often the same prompts are answered during a run, if not set."""


@dataclass
class Progress:
    """What the loop has done; with the trainer's state it is the checkpoint."""

    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    """Policy loss of the last rollout."""


@dataclass(frozen=True)
class Run:
    """What goes through training together."""

    trainer: PpoTrainer
    guards: Guards
    examiner: Examiner
    watch: Watch
    before: Exam


def train(ctx: Context[PpoConfig]) -> None:
    """Improve ``model`` against its rewards; write the outputs. Continues from the checkpoint in scratch."""
    check_rewards(ctx)
    tokenizer = load_tokenizer_of(ctx.one("model"))
    prompts, held_out = _prompts(ctx, tokenizer)
    rows = [one.row for one in [*prompts, *held_out]]
    with (
        functions(ctx, "reward_func", tokenizer, rows) as rewarded,
        functions(ctx, "eval_func", tokenizer, rows) as evals,
        ranks_from_environment(pick_device()) if ctx.world_size > 1 else nullcontext(single()) as ranks,
        _sampler(ctx, ranks) as engine,
    ):
        _train(ctx, ranks, engine, tokenizer, prompts, held_out, rewarded, evals)


def _train(
    ctx: Context[PpoConfig],
    ranks: Ranks,
    engine: RolloutEngine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Prompt],
    held_out: list[Prompt],
    rewarded: Mapping[str, RewardSource],
    evals: Mapping[str, RewardSource],
) -> None:
    config = ctx.config
    torch.manual_seed(config.seed)  # a fresh adapter is random
    models = load_models(ctx, tokenizer)
    settings = _settings(config, models, len(prompts))
    roles = models.roles
    ranks.broadcast([*roles.policy_parameters(), *roles.value_parameters(), *roles.head_parameters()])
    sources = with_learned(rewarded, models.reward, config.rollout_micro_batch_size)
    score = compose(sources, config.reward_weights or {})
    stop_ids = stop_token_ids(tokenizer, roles.sampler().generation_config.eos_token_id)
    pad_id = int(tokenizer.pad_token_id)  # type: ignore[arg-type]
    sampling = Sampling(stop_ids, pad_id, config.response_length, config.temperature, config.rollout_micro_batch_size)
    device = roles.head_parameters()[0].device
    examiner = Examiner(
        roles, engine, score, held_out, sampling, config.seed, config.rollout_micro_batch_size, device, ranks, evals
    )
    before = _before(ctx, examiner, ranks)
    scale = score_scale(ctx, sources, before)
    if models.value_init == "reward":
        rescale_head(roles.value_head, scale.mean, scale.std)
    trainer = PpoTrainer(roles, score, prompts, settings, sampling, scale, engine, ranks, reference_p99(ctx))
    folder = ctx.scratch / "watch"
    folder.mkdir(exist_ok=True)
    shown = [dict(one.row) for one in held_out[: config.num_sample_dumps]]
    watch = Watch(folder, shown, tokenizer, before.known, config.response_length)
    progress = _fit(ctx, Run(trainer, Guards(_guard_settings(config), scale.std), examiner, watch, before))

    after = examiner.sampled(trainer.rollout)
    watch.answers(trainer.rollout, after, examiner.greedy(trainer.rollout, config.num_sample_dumps))
    ctx.events.metrics(trainer.rollout, after.summary())
    trained = [*roles.policy_parameters(), *roles.value_parameters(), *roles.head_parameters()]
    ranks.assert_same(trained)
    if ranks.rank == 0:
        _save(ctx, models, tokenizer)
        changes = compare(before, after)
        _report(ctx, watch, changes)
        _summarize(ctx, models, progress, changes)


def _prompts(ctx: Context[PpoConfig], tokenizer: PreTrainedTokenizerBase) -> tuple[list[Prompt], list[Prompt]]:
    """To learn from, and held out: of validation, or of test if that is empty. A prompt is in one of the two alone."""
    data = ctx.one("data")
    split = "validation" if read_split(data.path, "validation", *_ROWS, limit=1) else "test"
    prompts = _read_prompts(ctx, tokenizer, "train")
    held_out = _read_prompts(ctx, tokenizer, split, ctx.config.eval_prompts)
    asked = {tuple(one.ids) for one in held_out}
    kept = [one for one in prompts if tuple(one.ids) not in asked]
    if not kept:
        raise BadData(f"{data.ref}: all prompts of train are in {split} too", "split by prompt, as `ftcli prep` does")
    left_out = len(prompts) - len(kept)
    if left_out:
        ctx.events.note(f"train: {left_out} of {len(prompts)} prompts left out, they are held out in {split} too")
    ctx.events.summarize({"train/asked_in_held_out": left_out})
    return kept, held_out


_ROWS = (RowType.MESSAGES, RowType.PROMPT, RowType.PREFERENCE, RowType.RANKING)


def _read_prompts(
    ctx: Context[PpoConfig], tokenizer: PreTrainedTokenizerBase, split: str, limit: int | None = None
) -> list[Prompt]:
    """The first ``limit`` distinct prompts of a split that are short enough. Raises `BadData` where none is left."""
    data, longest = ctx.one("data"), ctx.config.max_prompt_length
    rows = read_split(data.path, split, *_ROWS)
    if not rows:
        missing = "train rows" if split == "train" else "validation rows and no test rows"
        raise BadData(f"{data.ref}: no {missing}", "give prep more rows, or larger validation and test shares")
    found: dict[tuple[int, ...], Prompt] = {}
    too_long = repeated = 0
    for row in rows:
        if len(found) == limit:
            break
        ids = tuple(render_prompt(tokenizer, prompt_of(row), tools=row.get("tools")))
        if len(ids) > longest:
            too_long += 1
        elif ids in found:
            repeated += 1
        else:
            found[ids] = Prompt(list(ids), row)
    if not found:
        raise BadData(
            f"{data.ref}: each of the {too_long} {split} prompts has more than {longest} tokens",
            "raise max_prompt_length, or shorten prompts in prep",
        )
    if split != "train" and len(found) < 2:
        raise BadData(
            f"{data.ref}: one held-out prompt in {split}, at least 2 needed", "give prep a larger share for it"
        )
    told = f" of {limit} asked for" if limit and len(found) < limit else ""
    told += f"; {too_long} left out with more than {longest} tokens" if too_long else ""
    told += f"; {repeated} with a prompt said before left out" if repeated else ""
    ctx.events.note(f"{split}: {len(found)} prompts{told}")
    return list(found.values())


@contextmanager
def _sampler(ctx: Context[PpoConfig], ranks: Ranks) -> Iterator[RolloutEngine]:
    config = ctx.config
    if config.rollout_engine == "hf":
        yield HfEngine(
            lambda size: ctx.events.note(f"out of memory while sampling: {size} rows at a time from here on")
        )
        return
    if ranks.size > 1 or config.method == "full":
        what = "several processes" if ranks.size > 1 else "method full"
        raise UsageError(f"rollout_engine vllm does not go with {what}", "leave rollout_engine at hf")
    engine = VllmServerEngine(config.vllm_url, ctx.scratch / "adapters", api_key=os.environ.get("VLLM_API_KEY"))
    try:
        yield engine
    finally:
        engine.close()


def _settings(config: PpoConfig, models: Models, prompts: int) -> PpoSettings:
    """For the optimisation. Raises `UsageError` where the policy would not learn in any rollout."""
    episodes = config.total_episodes or prompts * config.samples_per_prompt
    total = max(episodes // config.rollout_batch_size, 1)
    alone = config.critic_warmup_steps
    if alone is not None and alone >= total:
        raise UsageError(
            f"critic_warmup_steps {alone}: the run has {total} rollouts, so the policy would never learn",
            "lower it, or raise total_episodes",
        )
    learning_rate = config.learning_rate or (3e-6 if models.start.is_whole else 3e-5)
    warmup = 0 if models.value_init == "reward" else min(3, total // 10)
    return PpoSettings(
        total_rollouts=total,
        rollout_batch_size=config.rollout_batch_size,
        samples_per_prompt=config.samples_per_prompt,
        num_ppo_epochs=config.num_ppo_epochs,
        num_mini_batches=config.num_mini_batches,
        micro_batch_size=config.micro_batch_size,
        max_tokens_per_micro_batch=config.max_tokens_per_micro_batch,
        learning_rate=learning_rate,
        critic_learning_rate=config.critic_learning_rate or 5 * learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_rollouts=config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * total,
        critic_warmup_rollouts=warmup if alone is None else alone,
        adam_betas=(config.adam_beta1, config.adam_beta2),
        adam_epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        kl_penalty_in=config.kl_penalty_in,
        kl_coef=config.kl_coef,
        kl_target=config.kl_target,
        kl_horizon=config.kl_horizon,
        gamma=config.gamma,
        lam=config.lam,
        critic_lam=config.critic_lam,
        cliprange=config.cliprange,
        cliprange_high=config.cliprange_high,
        dual_clip=config.dual_clip,
        cliprange_value=config.cliprange_value,
        vf_coef=config.vf_coef,
        entropy_coef=config.entropy_coef,
        whiten_advantages=config.whiten_advantages,
        whiten_rewards=config.whiten_rewards,
        reward_clip=config.reward_clip,
        missing_eos_penalty=config.missing_eos_penalty,
        early_stop_approxkl=config.early_stop_approxkl,
        rollout_is_cap=config.rollout_is_cap,
        seed=config.seed,
    )


def _guard_settings(config: PpoConfig) -> GuardSettings:
    return GuardSettings(
        max_kl=config.max_kl,
        min_entropy_share=config.min_entropy_share,
        max_length_change=config.max_length_change,
        max_score_length_corr=config.max_score_length_corr,
        max_above_reference_share=config.max_above_reference_share,
        min_distinct2_share=config.min_distinct2_share,
        max_clip_fraction=config.max_clip_fraction,
        patience=config.guard_patience,
        stop_on=config.stop_on,
    )


def _before(ctx: Context[PpoConfig], examiner: Examiner, ranks: Ranks) -> Exam:
    """Answers of the starting policy, kept in scratch since a resumed run has it no more."""
    path = ctx.shared_scratch / "before.json"
    if ranks.gather(path.is_file())[0]:
        return Exam.from_json(json.loads(path.read_text(encoding="utf-8")))
    exam = examiner.sampled(0)
    if ranks.rank == 0:
        write_json(path, exam.to_json())
    return exam


def _fit(ctx: Context[PpoConfig], run: Run) -> Progress:
    """The loop over rollouts, with a checkpoint between them."""
    config, trainer, ranks = ctx.config, run.trainer, run.trainer.ranks
    total = trainer.settings.total_rollouts
    every = config.eval_steps or max(round(total / LOOKS), 1)
    progress = _resume(ctx, run)
    while not trainer.is_done:
        _stop_if_asked(ctx, trainer)
        start = time.perf_counter()
        metrics = trainer.step()
        seconds = time.perf_counter() - start
        progress = _advance(progress, metrics, trainer, seconds)
        ctx.events.metrics(trainer.rollout, metrics)
        ctx.events.progress(
            "ppo",
            trainer.rollout,
            total,
            score=metrics["objective/scores"],
            kl=metrics["objective/kl"],
            length=metrics["rollout/length_mean"],
            seconds=seconds,
        )
        _watch(ctx, run, metrics, looks=trainer.rollout % every == 0)
        is_due = trainer.rollout % config.save_steps == 0 or ranks.any(bool(ctx.stop.asked))
        if is_due and not trainer.is_done:
            _checkpoint(ctx, run, progress)
    return progress


def _stop_if_asked(ctx: Context[PpoConfig], trainer: PpoTrainer) -> None:
    """End here, with code 75, where a process was asked to: the checkpoint is there."""
    asked = next(filter(None, trainer.ranks.gather(ctx.stop.asked)), "")
    if asked:
        done = f"after rollout {trainer.rollout} of {trainer.settings.total_rollouts}, with a checkpoint"
        raise Stopped(
            f"stopped by {asked} {done if trainer.rollout else 'before the first rollout'}",
            "the same command goes on from there",
        )


def _watch(ctx: Context[PpoConfig], run: Run, metrics: Metrics, *, looks: bool) -> None:
    """Keep what the rollout looked like, and answers to the same prompts; raise `Diverged` where a guard ends the run."""
    trainer, count = run.trainer, ctx.config.num_sample_dumps
    alarms = run.guards.look(metrics)
    last = trainer.last
    assert last is not None
    run.watch.rollout(trainer.rollout, last.scores.known, [len(one.response) for one in last.exchanges], alarms)
    for alarm in alarms:
        ctx.events.note(f"rollout {trainer.rollout}: {alarm.text}; {alarm.hint}")
    if looks and not trainer.is_done:
        exam = run.examiner.sampled(trainer.rollout)
        run.watch.answers(trainer.rollout, exam, run.examiner.greedy(trainer.rollout, count))
        ctx.events.metrics(trainer.rollout, exam.summary())
    ends = next((alarm for alarm in alarms if alarm.stops), None)
    if ends:
        raise Diverged(
            f"rollout {trainer.rollout}: {ends.text} (guard {ends.name})",
            f"{ends.hint}; answers through training are in {run.watch.samples.path}",
        )


def _resume(ctx: Context[PpoConfig], run: Run) -> Progress:
    trainer, watch = run.trainer, run.watch
    state = load_checkpoint(ctx.shared_scratch)
    if state is None:
        ctx.events.rewind(-1)
        ctx.events.metrics(0, run.before.summary())
        watch.rewind(-1)
        watch.answers(0, run.before, run.examiner.greedy(0, ctx.config.num_sample_dumps))
        return Progress()
    trainer.load_state_dict(state["trainer"])
    run.guards.load_state_dict(state["guards"])
    ctx.events.rewind(trainer.rollout)
    watch.rewind(trainer.rollout)
    ctx.events.note(f"going on after rollout {trainer.rollout} of {trainer.settings.total_rollouts}")
    return Progress(**state["progress"])


def _checkpoint(ctx: Context[PpoConfig], run: Run, progress: Progress) -> None:
    if run.trainer.ranks.rank == 0:
        state = {"trainer": run.trainer.state_dict(), "guards": run.guards.state_dict(), "progress": vars(progress)}
        groups = run.trainer.optimizer.param_groups
        weights = sum(weight.numel() for group in groups for weight in group["params"])
        require_space(ctx.scratch, 12 * weights)  # float32 with AdamW's two moments
        save_checkpoint(ctx.scratch, state)


def _advance(progress: Progress, metrics: Metrics, trainer: PpoTrainer, seconds: float) -> Progress:
    tokens = round(float(metrics["rollout/length_mean"] or 0) * trainer.settings.rollout_batch_size)
    return Progress(progress.tokens + tokens, progress.seconds + seconds, metrics["loss/policy_avg"])


def _save(ctx: Context[PpoConfig], models: Models, tokenizer: PreTrainedTokenizerBase) -> None:
    policy, folder = ctx.one("model"), ctx.output("model")
    tokenizer.save_pretrained(folder)
    if models.start.is_whole:
        stored = AutoConfig.from_pretrained(policy.path).dtype or torch.float32
        models.roles.sampler().to(stored).save_pretrained(folder)
        return
    save_adapter(models.roles.sampler(), folder)
    write_base_record(folder, policy.base or policy, models.start.quantization, models.start.double_quant)


def _report(ctx: Context[PpoConfig], watch: Watch, changes: dict[str, float | int | None]) -> None:
    folder = ctx.output("report")
    metrics = ctx.scratch / "metrics.jsonl"
    save_figures(
        folder,
        [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()],
        changes,
        watch.alarms.records(),
        watch.samples.records(),
        watch.histograms.records(),
        settings=non_default(ctx.config),
        inputs=[
            {"name": name, "ref": item.ref, "digest": item.digest}
            for name, items in ctx.inputs.items()
            for item in items
        ],
    )
    write_report(folder)


def _summarize(
    ctx: Context[PpoConfig], models: Models, progress: Progress, changes: dict[str, float | int | None]
) -> None:
    roles = models.roles
    held = [roles.model] if hasattr(roles, "model") else [roles.policy_model, roles.reference_model, roles.value_model]
    everything = [weight for one in held if one is not None for weight in one.parameters()]
    total = count_weights([*everything, *roles.head_parameters()])
    z = changes["eval/score_change_z"]
    ctx.events.note(
        f"mean score of held-out samples {number(changes['eval/score_before'])} -> {number(changes['eval/score_after'])} "
        f"(change {signed(changes['eval/score_change'])}, standard error {number(changes['eval/score_change_se'])}"
        + (f", z {z:.1f})" if z is not None else ")")
        + f" at KL {changes['eval/kl']:.2f}"
    )
    ctx.events.summarize(
        {
            **changes,
            "start_digest": ctx.one("model").digest,
            "curves": {name: ctx.events.series(name) for name in CURVES},
            "train/loss": progress.loss,
            "trainable_parameters": models.trained_weights,
            "total_parameters": total,
            "trainable_share": models.trained_weights / total,
            "tokens": progress.tokens,
            "perf/seconds": round(progress.seconds, 3),
            "perf/tokens_per_s": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        }
    )
