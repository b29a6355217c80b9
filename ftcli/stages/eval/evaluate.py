"""Evaluate models: what each says and what the rows cost it, then the figures, the comparisons, the gate and the report.

Every model sees the same rows in the same number format. A base is loaded once for all its adapters, and only where the cache
does not know the answers already. Text metrics and health use greedy answers. A reward model also scores answers sampled with one
seed a row, since a policy can gain much there while its likeliest answer hardly moves.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ftcli.core.places import cache_dir
from ftcli.core.stage import Artifact, Context
from ftcli.data.rows import split_file
from ftcli.metrics.figures import Figures
from ftcli.metrics.gates import BASELINE_FILE, judge_gate
from ftcli.metrics.rules import Rule
from ftcli.metrics.verdicts import Verdict
from ftcli.models.load import load_tokenizer_of, pick_device, pick_dtype
from ftcli.stages.eval.bench import Bench, by_base
from ftcli.stages.eval.cache import FILE, Cache
from ftcli.stages.eval.checks import check_inputs, check_readers, check_rules_of, read_baseline
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import figures_of, pairs_of, without
from ftcli.stages.eval.held_out import HeldOut, read_held_out
from ftcli.stages.eval.judging import Judging, marked
from ftcli.stages.eval.leakage import Leakage, check_leakage
from ftcli.stages.eval.measuring import measure, measure_suites, measure_tasks, reads, subject_of
from ftcli.stages.eval.outcome import Outcome
from ftcli.stages.eval.readers import judge, language_judge, own_metrics, score_with_reward
from ftcli.stages.eval.results import Json, compared, described_models, drawing_of, listed
from ftcli.stages.eval.subject import Subject
from ftcli.stages.eval.write import Findings, provenance, write_report


def evaluate_models(ctx: Context[EvalConfig]) -> None:
    """Run the stage. Work that was interrupted is found again in the cache.

    Raises `UsageError` where inputs do not fit each other or held-out rows were trained on, `BadData` without usable rows. What
    the gate says is left in the facts: the report is published whatever it is.
    """
    started = time.monotonic()
    config, models = ctx.config, ctx.many("models")
    check_inputs(ctx)
    saved = read_baseline(ctx)
    held_out = read_held_out(ctx, load_tokenizer_of(models[0]))
    check_readers(ctx, held_out)
    check_rules_of(ctx, held_out, saved)
    source = split_file(ctx.one("data").path, config.split)
    leakage = check_leakage(held_out.rows, source, models, allow_leak=config.allow_leak, note=ctx.events.note)

    device = pick_device()
    bench = Bench(pick_dtype(config.precision, device), device)
    cache = Cache((cache_dir() if config.use_cache else ctx.scratch) / FILE, ctx.events.note)
    subjects = {artifact.label: subject_of(ctx, artifact, bench, cache) for artifact in models}
    reader = language_judge(ctx, bench, cache)  # now: a server that cannot be asked is known before any work
    outcomes = {artifact.label: measure(ctx, subjects[artifact.label], held_out) for artifact in by_base(models)}
    outcomes = {artifact.label: outcomes[artifact.label] for artifact in models}  # as given, not as loaded
    beside: dict[str, Figures] = {label: {} for label in outcomes}
    suites = measure_suites(ctx, subjects, beside)
    measure_tasks(ctx, subjects, beside)
    outcomes = score_with_reward(ctx, subjects, held_out, outcomes)
    judgings = judge(ctx, held_out, outcomes, reader)

    figures = {
        label: _on_rows(ctx, subjects[label], held_out, outcome) | beside[label] | _judged(judgings, label)
        for label, outcome in outcomes.items()
    }
    figures = marked(figures, judgings)
    everything = figures | ({} if saved is None else {BASELINE_FILE: saved})
    content = {
        **_setting(ctx, held_out, bench),
        **described_models(figures, drawing_of(config)),
        **_comparisons(config, models, everything, leakage, held_out, judgings),
        "leakage": leakage.to_json(),
        "suites": suites,
        "judges": [one for judging in judgings for one in judging.described],
        "work": {label: {"computed": one.computed, "cached": one.cached} for label, one in subjects.items()},
        **provenance(models, ctx.maybe("reward")),
    }
    verdict = _judged_gate(config, everything, models, judgings)
    write_report(ctx, Findings(held_out, outcomes, figures, content, verdict))
    ctx.events.summarize(
        {"rows": len(held_out.rows), "models": len(models), "perf/seconds": time.monotonic() - started}
    )


def _on_rows(ctx: Context[EvalConfig], subject: Subject, held_out: HeldOut, outcome: Outcome) -> Figures:
    """The figures of one model on the rows, with those of the user's own metrics."""
    reward = ctx.maybe("reward")
    rows = list(zip(held_out.ids, held_out.references, strict=True))
    scored_by = "" if reward is None else f"reward {reward.digest}"
    found = figures_of(outcome, rows, ctx.config, reads=reads(subject), reward_reads=scored_by)
    return found | own_metrics(ctx, held_out, outcome)


def _judged(judgings: Sequence[Judging], label: str) -> Figures:
    """The win rates of one model."""
    return {name: figure for one in judgings for name, figure in one.figures.get(label, {}).items()}


def _setting(ctx: Context[EvalConfig], held_out: HeldOut, bench: Bench) -> Json:
    """On what, and how, the models were measured: the first entries of metrics.json."""
    data = ctx.one("data")
    return {
        "format": 2,
        "baseline": ctx.many("models")[0].label,
        "data": {"ref": data.ref, "digest": data.digest, "split": ctx.config.split},
        "rows": {
            "scored": len(held_out.rows),
            "answered": len(held_out.answered(ctx.config)),
            "left_out": held_out.left_out,
        },
        "dtype": str(bench.dtype).removeprefix("torch."),
        "device": bench.device.type,
        "versions": {name: importlib.metadata.version(name) for name in ("ftcli", "torch", "transformers", "peft")},
        "settings": ctx.config.model_dump(mode="json"),
    }


def _comparisons(
    config: EvalConfig,
    models: Sequence[Artifact],
    figures: Mapping[str, Figures],
    leakage: Leakage,
    held_out: HeldOut,
    judgings: Sequence[Judging],
) -> Json:
    """The entries ``comparisons`` and ``clean``: of the rows that were not found in training data, None where all or none were."""
    disbelieved = {
        one["metric"]: one["why"] for own in judgings for one in own.described if one["kind"] == "llm" and one["why"]
    }

    def found(figures: Mapping[str, Figures], pairs: Sequence[tuple[str, str]]) -> list[Json]:
        return listed(compared(figures, pairs, drawing_of(config)), disbelieved)

    pairs = pairs_of(models)
    to_file = [(models[-1].label, BASELINE_FILE)] if BASELINE_FILE in figures else []
    left = len(held_out.rows) - len(leakage.touched)
    clean: dict[str, Any] | None = None
    if leakage.touched and left > 0:
        clean = {"rows": left, "comparisons": found(without(figures, leakage.touched), pairs)}
    return {"comparisons": found(figures, pairs + to_file), "clean": clean}


def _judged_gate(
    config: EvalConfig, figures: Mapping[str, Figures], models: Sequence[Artifact], judgings: Sequence[Judging]
) -> Verdict | None:
    """The verdict of all rules, if there are any. Those against the baseline file are about the last model, whose earlier figures
    it holds."""
    rules = [*config.gate, *(Rule(expr=text) for text in config.fail_if)]
    if not rules:
        return None
    last = {"model": models[-1].label}
    drawing = drawing_of(config)
    return judge_gate(
        [rule.model_copy(update=last) if rule.against == BASELINE_FILE else rule for rule in rules],
        figures,
        baseline=models[0].label,
        mode=config.gate_mode,
        alpha=drawing.alpha,
        drawing=drawing,
        strict=config.strict,
        unfit={name: why for judging in judgings for name, why in judging.unfit.items()},
    )
