"""What others say of the answers: the reward model, judges, and metric functions of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from ftcli.core.stage import Context
from ftcli.data.rows import prompt_of
from ftcli.metrics.custom import load_metric
from ftcli.metrics.figures import Figures
from ftcli.stages.eval.bench import Bench
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.checks import columns_of
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import of_text
from ftcli.stages.eval.held_out import HeldOut, encode
from ftcli.stages.eval.judge_server import KEY_NAME, ServerJudge
from ftcli.stages.eval.judges import LocalJudge
from ftcli.stages.eval.judging import REWARDS, Judge, Judging, circular, judge_by_model, judge_by_reward
from ftcli.stages.eval.measuring import Subjects, subject_of
from ftcli.stages.eval.outcome import Outcome
from ftcli.stages.eval.rewards import RewardScorer


def score_with_reward(
    ctx: Context[EvalConfig], subjects: Subjects, held_out: HeldOut, outcomes: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Fill in the reward model's scores of all answers, where there is one."""
    reward, asked = ctx.maybe("reward"), held_out.answered(ctx.config)
    if reward is None or not asked:
        return dict(outcomes)
    bench = next(iter(subjects.values())).bench
    scorer, found = RewardScorer(reward, bench, ctx.config.batch_size), {}
    for label, outcome in outcomes.items():
        subject = subjects[label]
        prompts = [encode(subject.tokenizer, row, subject.stop_ids)[0] for row in asked]
        repeated = [prompt for prompt in prompts for _ in range(ctx.config.samples_per_prompt)]
        found[label] = replace(
            outcome,
            greedy_scores=scorer.scores(subject, prompts, outcome.greedy),
            sampled_scores=scorer.scores(subject, repeated, outcome.sampled),
        )
    return found


def judge(
    ctx: Context[EvalConfig], held_out: HeldOut, outcomes: Mapping[str, Outcome], reader: Judge | None
) -> list[Judging]:
    """What each judge that was given says of the answers against the first model's."""
    models, asked, reward = ctx.many("models"), held_out.answered(ctx.config), ctx.maybe("reward")
    if not asked:
        return []
    found = []
    if reward is not None and len(models) > 1:
        found.append(judge_by_reward(reward, models, [row["id"] for row in asked], outcomes))
    elif reward is not None and (why := circular(models, reward)):
        found.append(Judging(unfit=dict.fromkeys(REWARDS, why)))
    if reader is not None:
        found.append(judge_by_model(reader, models, asked, outcomes))
    for judging in found:
        for name, why in judging.unfit.items():
            ctx.events.note(f"{name} may not gate: {why}")
    return found


def language_judge(ctx: Context[EvalConfig], bench: Bench, cache: Cache) -> Judge | None:
    """The model of the input ``judge``, or the server of judge_url."""
    config, given = ctx.config, ctx.maybe("judge")
    if config.judge_url:
        key = os.environ.get(KEY_NAME)
        return ServerJudge(config.judge_url, config.judge_model, key, ctx.events.progress, ctx.events.note)
    if given is None:
        return None
    return LocalJudge(subject_of(ctx, replace(given, label="judge"), bench, cache), ctx.events.note)


def own_metrics(ctx: Context[EvalConfig], held_out: HeldOut, outcome: Outcome) -> Figures:
    """The figures of the user's metric functions on one model's greedy answers."""
    asked = held_out.answered(ctx.config)
    if not outcome.greedy:
        return {}
    columns = columns_of(asked)
    ids, references = held_out.ids[: len(asked)], held_out.references[: len(asked)]
    texts, prompts = [one.text for one in outcome.greedy], [prompt_of(row) for row in asked]
    found: Figures = {}
    for artifact in ctx.many("metric"):
        metric = load_metric(artifact, columns=sorted(columns))
        try:
            score = metric.score(texts, references, prompts, ids, columns)
        finally:
            metric.close()
        found[metric.name] = of_text(metric.name, metric.metric, score, ids)
    return found
