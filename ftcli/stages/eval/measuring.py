"""What models say: what the rows cost each, its answers, and its figures on the suite and on academic tasks.

Answers of a model are computed where the cache does not know them (`ftcli.stages.eval.subject`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftcli.core.stage import Artifact, Context
from ftcli.metrics.figures import Figures
from ftcli.stages.eval.bench import Bench, by_base
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.drift import KL_NAME, Unlike, suite_kl
from ftcli.stages.eval.held_out import HeldOut, encode, wants_answers
from ftcli.stages.eval.lm_harness import run_tasks
from ftcli.stages.eval.outcome import Outcome
from ftcli.stages.eval.subject import Subject, tokenizer_digest
from ftcli.stages.eval.suite import Suite, load_suite, measure_suite, uninformative, unmeasured

Subjects = Mapping[str, Subject]
Json = dict[str, Any]


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
    try:
        figure = suite_kl(base, tuned, suite, ctx.scratch)
    except Unlike as error:
        ctx.events.note(f"{KL_NAME} is left out: {error}")
        return
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
            chat_template=ctx.config.lm_eval_chat,
            shots=ctx.config.lm_eval_shots,
            limit=ctx.config.lm_eval_limit,
            batch_size=subject.batch_size,
            max_length=ctx.config.max_length,
            seed=ctx.config.seed,
            kept=subject.kept,
        )
        figures[artifact.label] |= found.figures
        for text in found.notes:
            ctx.events.note(text)


def reads(subject: Subject) -> str:
    """What two models must share for costs in tokens to be comparable: tokenizer with template, and number format."""
    return f"tokenizer {tokenizer_digest(subject.tokenizer)[:12]}|{str(subject.bench.dtype).removeprefix('torch.')}"
