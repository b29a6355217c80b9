"""A gate: rules over the figures of several models, judged into one verdict that text, files and exit code all come from.

``proven``        a rule fails only when the model is proven worse: the interval of the change and Holm's p both say so, and the
                  change is larger than the rule's limit, if it has one
``non-inferior``  a rule fails unless the model is proven to be no worse than the limit, or the metric's own margin
``point``         a raw threshold, without a thought for chance

What cannot be judged never passes: a rule whose metric is missing, not finite, not comparable or unfit makes the verdict 7, and
a broken one 6, whatever the others say. Holm's family is every test that the hard rules make, over rules and models; the soft
rules, which only warn, are a family of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftcli.metrics.comparison import Drawing
from ftcli.metrics.conditions import Condition, look_up
from ftcli.metrics.evidence import Evidence, NotEvaluable, Pairs, Test, check_fit, of_change, of_value
from ftcli.metrics.figures import Figures
from ftcli.metrics.rules import Mode, Rule, problems_of, split_name
from ftcli.metrics.statistics import EXACT_ROWS, holm
from ftcli.metrics.verdicts import Result, Status, Verdict, headline, message

BASELINE_FILE = "baseline_file"
"""The label of figures that were read from a file; no model under test."""
ROUNDING = 1e-12
"""0.31 - 0.30 is not 0.01 to the last bit."""


@dataclass(frozen=True)
class _Check:
    """A rule for one model before Holm's correction: what the figures say, or the problem that keeps them from saying it."""

    rule: Rule
    model: str
    against: str
    mode: Mode
    found: Evidence | Condition | str
    tests: Mapping[Test, float]


def judge_gate(
    rules: Sequence[Rule],
    figures: Mapping[str, Figures],
    *,
    baseline: str,
    mode: Mode = "proven",
    alpha: float = 0.05,
    drawing: Drawing | None = None,
    strict: bool = False,
    unfit: Mapping[str, str] | None = None,
) -> Verdict:
    """Judge ``rules`` over ``{label: figures}``; models are compared with ``baseline`` unless a rule says otherwise.

    ``strict`` makes what is inconclusive not evaluable. ``unfit`` are metrics that may not gate, or ``LABEL.METRIC`` of one model,
    with the reason. Raises `ValueError` without rules: a gate that asks nothing passes everything.
    """
    if not rules:
        raise ValueError("a gate without rules")
    pairs = Pairs(dict(figures), drawing or Drawing())
    checks = [one for rule in rules for one in _checks(rule, pairs, baseline, mode, alpha, unfit or {})]
    corrected = {severity: _family(checks, severity) for severity in ("hard", "soft")}
    results = tuple(_result(one, corrected[one.rule.severity], pairs, alpha, strict=strict) for one in checks)
    hard = [one.status for one in results if one.severity == "hard"]
    exit_code = 6 if "failed" in hard else 7 if "not evaluable" in hard else 0
    return Verdict(exit_code, headline(exit_code, results), results, mode, alpha, strict)


def _family(checks: Sequence[_Check], severity: str) -> dict[Test, float]:
    """Holm's p of every test that rules of this severity make; the same test counts once."""
    family = {test: p for one in checks if one.rule.severity == severity for test, p in one.tests.items()}
    return dict(zip(family, holm(list(family.values())), strict=True))


def _checks(
    rule: Rule, pairs: Pairs, baseline: str, mode: Mode, alpha: float, unfit: Mapping[str, str]
) -> list[_Check]:
    """``rule`` for every model that it is about."""
    mode = rule.mode or mode
    labels = list(pairs.models)
    metrics = {name for one in pairs.models.values() for name in one}
    against = rule.against or (baseline if baseline in labels and len(labels) > 1 else "")
    if problems := problems_of(rule, metrics, labels):
        return [_Check(rule, rule.model, against, mode, "; ".join(problems), {})]
    models = _models(rule, labels, metrics, {baseline, against})
    if not models:
        return [_Check(rule, "", against, mode, "there is no model left to judge: name one with model", {})]
    return [_check(rule, pairs, label, against, mode, alpha, unfit) for label in models]


def _models(rule: Rule, labels: Sequence[str], metrics: set[str], others: set[str]) -> list[str]:
    """Which models a rule is about. A condition that names its models in all places is judged once, for all of them."""
    if rule.model:
        return [rule.model]
    if rule.expr:
        named = [split_name(name, metrics, labels)[0] for name in rule.expression().names]
        if all(named):
            return ["+".join(dict.fromkeys(named))]
    under_test = [label for label in labels if label != BASELINE_FILE]
    return under_test if len(under_test) == 1 else [label for label in under_test if label not in others]


def _check(
    rule: Rule, pairs: Pairs, label: str, against: str, mode: Mode, alpha: float, unfit: Mapping[str, str]
) -> _Check:
    try:
        if rule.expr:
            found = look_up(rule, pairs, label, against, unfit)
            tests = {test: found.values[name] for name, test in found.tests.items()}
            return _Check(rule, label, against, mode, found, tests)
        check_fit(rule.metric, unfit, [label] if rule.is_absolute else [label, against])
        if rule.is_absolute:
            evidence = of_value(rule, mode, pairs, label)
            test = (label, "", rule.metric, f"{mode} {rule.limit}")
        else:
            evidence = of_change(rule, mode, pairs, label, against, alpha)
            test = (label, against, rule.metric, "change" if mode == "proven" else f"{mode} {rule.limit}")
        return _Check(rule, label, against, mode, evidence, {} if evidence.p is None else {test: evidence.p})
    except NotEvaluable as error:
        return _Check(rule, label, against, mode, str(error), {})


def _result(check: _Check, family: Mapping[Test, float], pairs: Pairs, alpha: float, *, strict: bool) -> Result:
    rule, found = check.rule, check.found
    about = (rule, check.model, "" if rule.is_absolute else check.against)
    if isinstance(found, str):
        return Result(*about, rule.metric, check.mode, "not evaluable", found)
    if isinstance(found, Condition):
        return _of_condition(check, found, family)
    draws = pairs.drawing.resamples
    if (
        check.mode == "proven"
        and found.change is not None
        and found.n > EXACT_ROWS
        and len(family) >= alpha * (draws + 1)
    ):
        few = f"{draws} resamples are too few to prove anything in {len(family)} tests at alpha {alpha:g}"
        return Result(
            *about, rule.metric, check.mode, "not evaluable", f"{few}: {math.ceil(len(family) / alpha)} are needed"
        )
    p_holm = next((family[test] for test in check.tests), None)
    status = _status(check.mode, found, p_holm, alpha)
    text = message(rule, check.mode, found, p_holm, status, pairs.models[check.model][rule.metric].metric, alpha)
    if status == "inconclusive" and strict:
        status, text = "not evaluable", f"{text} (strict)"
    return Result(
        *about, rule.metric, check.mode, status, text, found.value, found.baseline, found.scale, found.n, found.change, found.ci,
        found.se, found.p, p_holm, found.mde, found.margin, found.test,
    )  # fmt: skip


def _status(mode: Mode, evidence: Evidence, p_holm: float | None, alpha: float) -> Status:
    beyond = evidence.worse - evidence.allowed > ROUNDING
    if p_holm is None:  # a raw threshold
        return "failed" if beyond else "passed"
    within = evidence.high - (evidence.tolerated or 0.0) <= ROUNDING
    if mode == "non-inferior":
        return "passed" if within and p_holm < alpha else "failed"
    if beyond and evidence.low > ROUNDING and p_holm < alpha:
        return "failed"
    return "passed" if within else "inconclusive"


def _of_condition(check: _Check, found: Condition, family: Mapping[Test, float]) -> Result:
    """A condition is broken when it is true."""
    values = {**found.values, **{name: family[test] for name, test in found.tests.items()}}
    said = ", ".join(f"{name} = {value:.4g}" for name, value in values.items()) or "no figure in it"
    status: Status
    try:
        status = "failed" if check.rule.expression().holds(values) else "passed"
    except ArithmeticError as error:
        status, said = "not evaluable", f"{error}; {said}"
    about = (check.rule, check.model, check.against)
    if found.pair is None:
        return Result(*about, "", "", status, said)
    before, after, one = found.pair
    said += f"; n {one.n}" + (f", detectable {one.mde:.3g}" if one.mde is not None else "")
    return Result(
        *about, one.metric, "", status, said, after.value(), before.value(), one.scale, one.n, one.change, one.ci, one.se, one.p,
        next((family[test] for test in found.tests.values()), None), one.mde, None, one.test,
    )  # fmt: skip
