"""Evaluate models: what each says and what the rows cost it, then the figures, the comparisons, the gate and the report.

Every model sees the same rows in the same number format. A base is loaded once for all its adapters, and only where the cache
does not know the answers already. Text metrics and health use greedy answers. A reward model also scores answers sampled with one
seed a row, since a policy can gain much there while its likeliest answer hardly moves.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftcli.core.places import cache_dir
from ftcli.core.stage import Artifact, Context
from ftcli.data.rows import prompt_of, split_file
from ftcli.metrics.custom import load_metric
from ftcli.metrics.figures import Figures
from ftcli.metrics.gates import BASELINE_FILE, judge_gate
from ftcli.metrics.rules import Rule
from ftcli.metrics.verdicts import Verdict
from ftcli.models.load import load_tokenizer_of, pick_device, pick_dtype
from ftcli.stages.eval.bench import Bench, by_base
from ftcli.stages.eval.cache import FILE, Cache
from ftcli.stages.eval.checks import check_inputs, check_readers, columns_of, read_baseline
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.drift import kl_obstacle, suite_kl
from ftcli.stages.eval.figures import figures_of, of_text, pairs_of, without
from ftcli.stages.eval.held_out import HeldOut, encode, read_held_out
from ftcli.stages.eval.judge_server import KEY_NAME, ServerJudge
from ftcli.stages.eval.judges import LocalJudge
from ftcli.stages.eval.judging import REWARDS, Judge, Judging, circular, judge_by_model, judge_by_reward, marked
from ftcli.stages.eval.leakage import Leakage, check_leakage
from ftcli.stages.eval.lm_harness import run_tasks
from ftcli.stages.eval.outcome import Outcome
from ftcli.stages.eval.results import Json, compared, described_models, drawing_of, listed
from ftcli.stages.eval.rewards import RewardScorer
from ftcli.stages.eval.subject import Subject, tokenizer_digest
from ftcli.stages.eval.suite import Suite, load_suite, measure_suite, uninformative, unmeasured
from ftcli.stages.eval.write import Findings, provenance, write_report

Subjects = Mapping[str, Subject]


def evaluate_models(ctx: Context[EvalConfig]) -> None:
    """Run the stage. Work that was interrupted is found again in the cache.

    Raises `UsageError` where inputs do not fit each other or held-out rows were trained on, `BadData` without usable rows. What
    the gate says is left in the facts: the report is published whatever it is.
    """
    started = time.monotonic()
    config, models, drawing = ctx.config, ctx.many("models"), drawing_of(ctx.config)
    saved = read_baseline(ctx)
    check_inputs(ctx, saved)
    held_out = read_held_out(ctx, load_tokenizer_of(models[0]))
    check_readers(ctx, held_out)
    source = split_file(ctx.one("data").path, config.split)
    leakage = check_leakage(held_out.rows, source, models, allow_leak=config.allow_leak, note=ctx.events.note)
    device = pick_device()
    bench = Bench(pick_dtype(config.precision, device), device)
    cache = Cache((cache_dir() if config.use_cache else ctx.scratch) / FILE, ctx.events.note)
    subjects = {artifact.label: subject_of(ctx, artifact, bench, cache) for artifact in models}
    reader = language_judge(ctx, bench, cache)  # now: a server that cannot be asked is known before any work
    outcomes = {artifact.label: measure(ctx, subjects[artifact.label], held_out) for artifact in by_base(models)}
    outcomes = {artifact.label: outcomes[artifact.label] for artifact in models}  # as given, not as loaded
    figures: dict[str, Figures] = {label: {} for label in outcomes}
    suites = measure_suites(ctx, subjects, figures)
    measure_tasks(ctx, subjects, figures)
    outcomes = score_with_reward(ctx, subjects, held_out, outcomes)
    judgings = judge(ctx, held_out, outcomes, reader)
    for label, outcome in outcomes.items():
        figures[label] = task_figures(ctx, subjects[label], held_out, outcome) | figures[label]
        for judging in judgings:
            figures[label] |= judging.figures.get(label, {})
    figures = marked(figures, judgings)
    pairs = pairs_of(models) + ([(models[-1].label, BASELINE_FILE)] if saved else [])
    everything = figures | ({BASELINE_FILE: saved} if saved else {})
    found = compared(everything, pairs, drawing)
    disbelieved = {
        one["metric"]: one["why"] for own in judgings for one in own.described if one["kind"] == "llm" and one["why"]
    }
    content: Json = {
        "format": 2,
        "baseline": models[0].label,
        "data": {"ref": ctx.one("data").ref, "digest": ctx.one("data").digest, "split": config.split},
        "rows": {
            "scored": len(held_out.rows),
            "answered": len(held_out.answered(config)),
            "left_out": held_out.left_out,
        },
        "dtype": str(bench.dtype).removeprefix("torch."),
        "device": device.type,
        "versions": {name: importlib.metadata.version(name) for name in ("ftcli", "torch", "transformers", "peft")},
        "settings": config.model_dump(mode="json"),
        **described_models(figures, drawing),
        "comparisons": listed(found, disbelieved),
        "clean": clean(figures, pairs_of(models), leakage, held_out, config, disbelieved),
        "leakage": leakage.to_json(),
        "suites": suites,
        "judges": [one for judging in judgings for one in judging.described],
        "work": {label: {"computed": one.computed, "cached": one.cached} for label, one in subjects.items()},
        **provenance(models, ctx.maybe("reward")),
    }
    unfit = {name: why for judging in judgings for name, why in judging.unfit.items()}
    verdict = judged_gate(config, everything, models[0].label, unfit)
    write_report(ctx, Findings(held_out, outcomes, figures, content, verdict))
    ctx.events.summarize(
        {"rows": len(held_out.rows), "models": len(models), "perf/seconds": time.monotonic() - started}
    )


def subject_of(ctx: Context[EvalConfig], artifact: Artifact, bench: Bench, cache: Cache) -> Subject:
    return Subject(
        artifact,
        bench,
        cache,
        batch_size=ctx.config.batch_size,
        seed=ctx.config.seed,
        progress=ctx.events.progress,
        note=ctx.events.note,
    )


# What models say ---------------------------------------------------------------------------------------------------------------


def measure(ctx: Context[EvalConfig], subject: Subject, held_out: HeldOut) -> Outcome:
    """What the rows cost one model, and its answers. Sampled answers are only needed for a reward model."""
    config = ctx.config
    if held_out.is_text:
        texts = [subject.tokenizer(text, add_special_tokens=False).input_ids for text in held_out.references]
        scores = subject.text_nll(
            texts, context=config.max_length, stride=config.window_stride, prefix=prefix_id(subject, config)
        )
        return Outcome(
            [one.nll for one in scores],
            [one.tokens for one in scores],
            sizes=[
                scored_bytes(subject, text, own, config) for text, own in zip(held_out.references, texts, strict=True)
            ],
            whole_texts=True,
        )
    pairs = [encode(subject.tokenizer, row, subject.stop_ids) for row in held_out.rows]
    asked = held_out.answered(config)
    prompts = [prompt for prompt, _ in pairs[: len(asked)]]
    outcome = Outcome()
    if "perplexity" in config.metrics:
        scores = subject.answer_nll(pairs)
        outcome = replace(
            outcome,
            nll=[one.nll for one in scores],
            tokens=[one.tokens for one in scores],
            sizes=[len(text.encode()) for text in held_out.references],
        )
    if wants_answers(ctx):
        keys = [f"{row['id']}#0" for row in asked]
        outcome = replace(outcome, greedy=subject.answers(prompts, keys, max_new_tokens=config.max_new_tokens))
    if ctx.maybe("reward") is not None:
        repeats = range(config.samples_per_prompt)
        outcome = replace(
            outcome,
            sampled=subject.answers(
                [prompt for prompt in prompts for _ in repeats],
                [f"{row['id']}#{repeat}" for row in asked for repeat in repeats],
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
            ),
        )
    return outcome


def scored_bytes(subject: Subject, text: str, ids: Sequence[int], config: EvalConfig) -> int:
    """The bytes of a text that are scored: without a token before it, those of its first token are not."""
    first = 0 if config.prefix != "none" else len(str(subject.tokenizer.decode(list(ids[:1]))).encode())
    return len(text.encode()) - first


def wants_answers(ctx: Context[EvalConfig]) -> bool:
    readers = any(ctx.many(name) for name in ("reward", "judge", "metric")) or ctx.config.judge_url
    return bool(readers) or bool(set(ctx.config.metrics) - {"perplexity"})


def prefix_id(subject: Subject, config: EvalConfig) -> int | None:
    """The token before each text, which `check_readers` has looked for."""
    return None if config.prefix == "none" else int(getattr(subject.tokenizer, f"{config.prefix}_token_id"))


def measure_suites(ctx: Context[EvalConfig], subjects: Subjects, figures: dict[str, Figures]) -> list[Json]:
    """Add the suite's figures of each model to ``figures``; describe the suite for metrics.json."""
    if ctx.config.suite == "none":
        return []
    suite = load_suite(ctx.config.suite)
    if ctx.config.suite_limit is not None:
        suite = suite.limited(ctx.config.suite_limit)
    order = by_base([subject.artifact for subject in subjects.values()])
    for artifact in order:
        subject = subjects[artifact.label]
        figures[artifact.label] |= measure_suite(subject, suite)
        for name, why in unmeasured(subject).items():
            ctx.events.note(f"{name} is left out: {why}")
    base = next(iter(subjects.values()))
    for artifact in order:
        _add_drift(ctx, base, subjects[artifact.label], suite, figures)
    return [
        {
            "name": suite.name,
            "version": suite.version,
            "digest": suite.digest,
            "items": len(suite.items),
            "uninformative": uninformative(figures[base.label]),
        }
    ]


def _add_drift(
    ctx: Context[EvalConfig], base: Subject, tuned: Subject, suite: Suite, figures: dict[str, Figures]
) -> None:
    if tuned is base:
        return
    obstacle = kl_obstacle(base, tuned)
    if obstacle:
        ctx.events.note(f"general.kl is left out: {obstacle}")
        return
    figure = suite_kl(base, tuned, suite, ctx.scratch)
    figures[tuned.label][figure.name] = figure


def measure_tasks(ctx: Context[EvalConfig], subjects: Subjects, figures: dict[str, Figures]) -> None:
    """Add the figures of lm-evaluation-harness."""
    tasks, folder = ctx.config.lm_eval, ctx.maybe("tasks")
    if not tasks:
        return
    for artifact in by_base([subject.artifact for subject in subjects.values()]):
        subject = subjects[artifact.label]
        found = run_tasks(
            subject.model(),
            subject.tokenizer,
            tasks,
            None if folder is None else folder.path,
            comparable=reads(subject),
            batch_size=ctx.config.batch_size,
            max_length=ctx.config.max_length,
        )
        figures[artifact.label] |= found.figures
        for text in found.notes:
            ctx.events.note(text)


# What others say of it ---------------------------------------------------------------------------------------------------------


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


# Figures -----------------------------------------------------------------------------------------------------------------------


def reads(subject: Subject) -> str:
    """What two models must share for costs in tokens to be comparable: tokenizer with template, and number format."""
    return f"tokenizer {tokenizer_digest(subject.tokenizer)[:12]}|{str(subject.bench.dtype).removeprefix('torch.')}"


def task_figures(ctx: Context[EvalConfig], subject: Subject, held_out: HeldOut, outcome: Outcome) -> Figures:
    """The figures of one model on the rows, with those of the user's own metrics."""
    reward = ctx.maybe("reward")
    rows = list(zip(held_out.ids, held_out.references, strict=True))
    scored_by = "" if reward is None else f"reward {reward.digest}"
    found = figures_of(outcome, rows, ctx.config, reads=reads(subject), reward_reads=scored_by)
    if not outcome.greedy:
        return found
    asked = held_out.answered(ctx.config)
    columns = columns_of(asked)
    texts, references = [one.text for one in outcome.greedy], held_out.references[: len(asked)]
    for artifact in ctx.many("metric"):
        metric = load_metric(artifact, columns=sorted(columns))
        try:
            score = metric.score(
                texts, references, [prompt_of(row) for row in asked], held_out.ids[: len(asked)], columns
            )
        finally:
            metric.close()
        found[metric.name] = of_text(metric.name, metric.metric, score, held_out.ids)
    return found


def clean(
    figures: Mapping[str, Figures],
    pairs: Sequence[tuple[str, str]],
    leakage: Leakage,
    held_out: HeldOut,
    config: EvalConfig,
    disbelieved: Mapping[str, str],
) -> dict[str, Any] | None:
    """The comparisons without the rows that were found in training data; None where there are no such rows, or no others."""
    left = len(held_out.rows) - len(leakage.touched)
    if not leakage.touched or left == 0:
        return None
    kept = without(figures, leakage.touched)
    return {"rows": left, "comparisons": listed(compared(kept, pairs, drawing_of(config)), disbelieved)}


def judged_gate(
    config: EvalConfig, figures: Mapping[str, Figures], baseline: str, unfit: Mapping[str, str]
) -> Verdict | None:
    """The verdict of all rules, if there are any."""
    rules = [*config.gate, *(Rule(expr=text) for text in config.fail_if)]
    if not rules:
        return None
    drawing = drawing_of(config)
    return judge_gate(
        rules,
        figures,
        baseline=baseline,
        mode=config.gate_mode,
        alpha=drawing.alpha,
        drawing=drawing,
        strict=config.strict,
        unfit=unfit,
    )
