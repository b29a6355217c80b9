"""What is refused before a model computes anything: inputs, settings and rows that do not fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ftcli.core.errors import UsageError
from ftcli.core.stage import Context
from ftcli.data.rows import Row
from ftcli.metrics.custom import ARGUMENTS, load_metric
from ftcli.metrics.figures import Figures, read_figures
from ftcli.metrics.gates import BASELINE_FILE
from ftcli.metrics.names import METRICS
from ftcli.metrics.rules import Rule, problems_of, split_name
from ftcli.models.load import load_tokenizer_of
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.drift import KL_NAME
from ftcli.stages.eval.held_out import HeldOut
from ftcli.stages.eval.judging import BY_MODEL, BY_REWARD
from ftcli.stages.eval.lm_tasks import check_tasks
from ftcli.stages.eval.rewards import check_reward
from ftcli.stages.eval.suite import METRICS as SUITE_METRICS

READERS = ("reward", "judge", "metric")
"""The inputs that read answers."""


def check_inputs(ctx: Context[EvalConfig]) -> None:
    """Refuse labels that clash, settings that nothing would read, tasks that cannot be run, and a reward model that cannot score
    these answers."""
    models, config = ctx.many("models"), ctx.config
    counts = Counter(item.label for item in models)
    clashes = [label for label, count in counts.items() if count > 1 or label == BASELINE_FILE]
    if clashes:
        raise UsageError(
            f"models: {', '.join(clashes)} names more than one model",
            "write a mapping of labels: models: {base: ..., lora: ...}",
        )
    judges = [name for name, is_given in (("judge", ctx.maybe("judge")), ("judge_url", config.judge_url)) if is_given]
    if len(judges) == 2:
        raise UsageError("judge: a model and a server are given", "drop the input judge, or judge_url and judge_model")
    if judges and len(models) == 1:
        raise UsageError(f"{judges[0]}: there is one model, and nothing to compare it with", "give a second one")
    tasks = ctx.maybe("tasks")
    if config.lm_eval:
        _check_templates(ctx)
        check_tasks(config.lm_eval, None if tasks is None else tasks.path)
    elif tasks is not None:
        raise UsageError("tasks: a folder of tasks is given and none is asked for", "name them with lm_eval")
    functions = Counter(item.ref.rpartition(":")[2] for item in ctx.many("metric"))
    if twice := [name for name, count in functions.items() if count > 1]:
        raise UsageError(f"metric: two functions are called {', '.join(twice)}", "give one of them another name")
    if (reward := ctx.maybe("reward")) is not None:
        check_reward(reward, models)


def _check_templates(ctx: Context[EvalConfig]) -> None:
    plain = [model.label for model in ctx.many("models") if not load_tokenizer_of(model).chat_template]
    if plain and ctx.config.lm_eval_chat:
        raise UsageError(
            f"lm_eval: {', '.join(plain)} has no chat template to put the tasks' prompts into",
            "set lm_eval_chat to false",
        )


def check_rules_of(ctx: Context[EvalConfig], held_out: HeldOut, saved: Figures | None) -> None:
    """Refuse rules about models and metrics that will not be there, and rules that compare another model than the last with the
    baseline file, which holds figures of that one."""
    models = [item.label for item in ctx.many("models")]
    labels = [*models, *([] if saved is None else [BASELINE_FILE])]
    rules = [*ctx.config.gate, *(Rule(expr=text) for text in ctx.config.fail_if)]
    metrics = measurable(ctx, held_out) | _of_tasks(ctx.config, rules)
    found = [(rule, text) for rule in rules for text in problems_of(rule, metrics, labels)]
    if not found:  # now all names can be read
        found = [
            (rule, f"the baseline file has figures of {models[-1]}, the last model, and none of {', '.join(others)}")
            for rule in rules
            if rule.against == BASELINE_FILE
            if (others := sorted(_named(rule, metrics, labels) - {models[-1], BASELINE_FILE}))
        ]
    if found:
        raise UsageError(
            "\n".join(f"gate: {rule}: {text}" for rule, text in found),
            f"models: {', '.join(models)}; {BASELINE_FILE} is the input baseline, with which the last of them is compared",
        )


def measurable(ctx: Context[EvalConfig], held_out: HeldOut) -> set[str]:
    """The metrics that this evaluation can have, all but those of lm-evaluation-harness's tasks."""
    config, many = ctx.config, len(ctx.many("models")) > 1
    reward = ctx.maybe("reward") is not None
    families = {*config.metrics, *(["reward"] if reward else [])}
    found = {name for name, one in METRICS.items() if one.family in families}
    found = {name for name in found if name.startswith("text_") == held_out.is_text}
    if config.suite != "none":
        found |= {*SUITE_METRICS, *([KL_NAME] if many else [])}
    if reward and many:
        found.add(BY_REWARD)
    if ctx.maybe("judge") is not None or config.judge_url:
        found.add(BY_MODEL)
    return found | {f"custom.{item.ref.rpartition(':')[2]}" for item in ctx.many("metric")}


def _of_tasks(config: EvalConfig, rules: Sequence[Rule]) -> set[str]:
    """Metrics of lm-evaluation-harness that ``rules`` name: which a task has is known once it was run."""
    if not config.lm_eval:
        return set()
    names = [name.rpartition(".")[0] for rule in rules for name in (rule.expression().names if rule.expr else ())]
    parts = [f".{name}".partition(".lm_eval.") for name in (*names, *(rule.metric for rule in rules))]
    return {f"lm_eval.{task}" for _, separator, task in parts if separator}


def _named(rule: Rule, metrics: set[str], labels: Sequence[str]) -> set[str]:
    """The models that ``rule`` is about by name."""
    inside = [split_name(name, metrics, labels)[0] for name in (rule.expression().names if rule.expr else ())]
    return {label for label in (rule.model, *inside) if label}


def read_baseline(ctx: Context[EvalConfig]) -> Figures | None:
    """The figures of the input ``baseline``: those of the model with the label of our last one, or of the only one there."""
    given = ctx.maybe("baseline")
    if given is None:
        return None
    found, label = read_figures(given.path), ctx.many("models")[-1].label
    if label not in found and len(found) != 1:
        raise UsageError(
            f"baseline: {given.ref} has figures of {', '.join(found) or 'no model'}, and none of {label}, the last model here",
            "label the last model like the one that it is to be compared with",
        )
    return found[label] if label in found else next(iter(found.values()))


def check_readers(ctx: Context[EvalConfig], held_out: HeldOut) -> None:
    """Refuse what does not fit the rows: what reads answers where nobody answers, a token before texts that a tokenizer does not
    have, metric functions that cannot be called."""
    if held_out.is_text:
        _check_texts(ctx)
    columns = sorted(columns_of(held_out.answered(ctx.config)))
    for artifact in ctx.many("metric"):
        load_metric(artifact, columns=columns).close()


def _check_texts(ctx: Context[EvalConfig]) -> None:
    given = [name for name in READERS if ctx.many(name)] + (["judge_url"] if ctx.config.judge_url else [])
    if given:
        raise UsageError(
            f"{', '.join(given)}: the rows are plain text, which no model answers", "give chat rows, or leave it out"
        )
    if "perplexity" not in ctx.config.metrics:
        raise UsageError(
            "metrics: the rows are plain text, of which nothing but perplexity is measured", "set metrics to perplexity"
        )
    prefix = ctx.config.prefix
    if prefix == "none":
        return
    name = f"{prefix}_token_id"
    lacking = [model.label for model in ctx.many("models") if getattr(load_tokenizer_of(model), name) is None]
    if lacking:
        raise UsageError(
            f"prefix {prefix}: the tokenizer of {', '.join(lacking)} has no such token", "set prefix to none"
        )


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """What the rows' ``meta`` says, by name; None in rows that do not say it. The names of what every metric function is given
    are taken."""
    own = [meta if isinstance(meta := row.get("meta"), dict) else {} for row in rows]
    names = dict.fromkeys(key for meta in own for key in meta if key not in ARGUMENTS)
    return {name: [meta.get(name) for meta in own] for name in names}
