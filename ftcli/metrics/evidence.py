"""What the figures say of one rule: how much worse a model is than it may be, how sure that is, and the p of the test.

Everything is turned so that more is worse. A change of a ratio metric, and the value of one, are taken as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from ftcli.metrics.comparison import Comparison, Drawing, compare, spread_of
from ftcli.metrics.figures import Figure, Figures, shown
from ftcli.metrics.rules import Mode, Rule
from ftcli.metrics.statistics import disagreements, fewest_rows, share_change, yeses

Test = tuple[str, ...]
"""What makes a test of Holm's family one and the same: model, against, metric, and the hypothesis."""


class NotEvaluable(Exception):
    """A rule cannot be judged; the text says why."""


def check_fit(metric: str, unfit: Mapping[str, str], labels: Sequence[str]) -> None:
    """Raise `NotEvaluable` for a metric that may not decide about the models ``labels``.

    ``unfit`` says why: by the metric's name, or by ``LABEL.METRIC`` where only that of one model may not.
    """
    for name in (metric, *(f"{label}.{metric}" for label in labels)):
        if name in unfit:
            raise NotEvaluable(f"{name} may not decide: {unfit[name]}")


@dataclass(frozen=True)
class Evidence:
    """``worse`` with its interval ``low`` to ``high``; the rule is broken beyond ``allowed``.

    ``tolerated`` is how much worse counts as no worse: the rule's limit, else the metric's own margin, None where it has none.
    ``p`` is that of the test which the mode asks for, None for a raw threshold. The rest is what a reader is shown, with ``ci`` of
    the change, or of the value where the rule limits the value.
    """

    worse: float
    low: float
    high: float
    allowed: float
    tolerated: float | None
    p: float | None
    value: float
    baseline: float | None
    scale: str
    n: int
    change: float | None
    ci: tuple[float, float]
    se: float
    mde: float | None
    margin: float | None
    test: str


class Pairs:
    """The figures of two models on the rows that both have, and their comparison; each is drawn once."""

    def __init__(self, models: dict[str, Figures], drawing: Drawing) -> None:
        self.models, self.drawing = models, drawing
        self._found: dict[tuple[str, str, str], tuple[Figure, Figure, Comparison]] = {}

    def figure(self, label: str, metric: str) -> Figure:
        if metric not in self.models[label]:
            raise NotEvaluable(f"{metric} of {label} was not measured")
        figure = self.models[label][metric]
        if figure.unfit:
            raise NotEvaluable(f"{metric} of {label} may not decide: {figure.unfit}")
        if not math.isfinite(figure.value()):
            raise NotEvaluable(f"{metric} of {label} is {figure.value()}")
        return figure

    def get(self, label: str, against: str, metric: str, min_n: int) -> tuple[Figure, Figure, Comparison]:
        """Baseline, model, comparison; raises `NotEvaluable` where they cannot be compared, or on fewer than ``min_n`` rows."""
        if not against:
            raise NotEvaluable(f"there is no other model to compare {label} with")
        if label == against:
            raise NotEvaluable(f"{label} would be compared with itself")
        key = (label, against, metric)
        if key not in self._found:
            first, second = self.figure(against, metric), self.figure(label, metric)
            theirs = set(first.ids)
            common = [row for row in second.ids if row in theirs]
            before, after = first.only(common), second.only(common)
            comparison = compare(first, second, self.drawing)
            self._found[key] = before, after, comparison
        before, after, comparison = self._found[key]
        if comparison.n < min_n:
            raise NotEvaluable(f"{metric}: {comparison.n} rows that both models have, {min_n} are needed")
        if comparison.status == "not evaluable":
            raise NotEvaluable(f"{metric}: {comparison.reason}")
        return before, after, comparison


def of_change(rule: Rule, mode: Mode, pairs: Pairs, label: str, against: str, alpha: float) -> Evidence:
    """The evidence of a rule about a change; raises `NotEvaluable`."""
    before, after, found = pairs.get(label, against, rule.metric, rule.min_n)
    if found.higher_is_better is None:
        raise NotEvaluable(f"neither direction of {rule.metric} is worse by itself: give max or min, or an expr")
    if mode == "proven" and found.n < fewest_rows(alpha):
        needed = f"{fewest_rows(alpha)} rows are the fewest that can prove anything at alpha {alpha:g}"
        raise NotEvaluable(f"{rule.metric}: {found.n} rows; {needed}")
    better = found.oriented()
    if better is None or found.change is None or found.ci is None or found.se is None or found.p is None:
        raise NotEvaluable(f"{rule.metric}: {found.reason or 'no figures'}")
    change = after.examples.value() - before.examples.value()  # of a ratio metric in logarithms
    worse = -change if found.higher_is_better else change
    allowed = _allowed(rule, found, before.value())
    tolerated = found.allowance() if rule.limit is None else allowed
    evidence = Evidence(
        worse, -better[1], -better[0], allowed, tolerated, found.p, after.value(), before.value(), found.scale, found.n,
        found.change, found.ci, found.se, found.mde, _margin(found, tolerated), found.test,
    )  # fmt: skip
    if mode == "point":
        return replace(evidence, p=None)
    if mode == "proven":
        return evidence
    if tolerated is None:
        raise NotEvaluable(f"{rule.metric} has no margin of its own: give max_drop or max_ratio")
    differing = disagreements(before.examples, after.examples) if after.metric.is_share else None
    if differing is None:
        p = _p_beyond(tolerated - worse, found.se, found.n)
        return replace(evidence, p=p, test="t test of the change, shifted by the margin")
    change, error = share_change(*differing, found.n)
    worse = -change if found.higher_is_better else change
    p = min(1.0, 2 * float(stats.norm.sf((tolerated - worse) / error)))
    return replace(evidence, p=p, test="z test of the change, adjusted and shifted by the margin")


def of_value(rule: Rule, mode: Mode, pairs: Pairs, label: str) -> Evidence:
    """The evidence of a rule about a value; raises `NotEvaluable`.

    Shares of yes and no have Wilson's interval and the exact binomial test; everything else the bootstrap's interval and a t
    test with the jackknife's standard error.
    """
    figure = pairs.figure(label, rule.metric)
    n = len(figure.ids)
    if n < rule.min_n:
        raise NotEvaluable(f"{rule.metric}: {n} rows, {rule.min_n} are needed")
    if rule.limit is None:
        raise ValueError(f"{rule} limits no value")
    bound, sign = rule.limit[1], 1 if rule.max is not None else -1
    if figure.metric.is_share and not 0 <= bound <= 1:
        raise NotEvaluable(f"{rule.limit[0]} {bound:g}: {rule.metric} is a share from 0 to 1")
    if figure.metric.is_ratio and bound <= 0:
        raise NotEvaluable(f"{rule.limit[0]} {bound:g}: {rule.metric} is above 0")
    edge = math.log(bound) if figure.metric.is_ratio else bound
    found = figure.examples.value()
    ci, se = spread_of(figure, pairs.drawing)
    if not all(map(math.isfinite, (*ci, se))):
        raise NotEvaluable(f"{rule.metric} of {label}: not every resample of the rows has a value")
    worse, (low, high) = sign * (found - edge), sorted(sign * (end - edge) for end in ci)
    p, test = _p_of_value(figure, bound, worse if mode == "proven" else -worse, sign if mode == "proven" else -sign, se)
    shown_ci = shown(figure.metric, ci[0]), shown(figure.metric, ci[1])
    return Evidence(
        worse, low, high, 0.0, 0.0, None if mode == "point" else p, figure.value(), None, "value", n, None, shown_ci, se,
        None, bound, test,
    )  # fmt: skip


def _allowed(rule: Rule, found: Comparison, baseline: float) -> float:
    """How much worse the rule allows, on the comparison's scale; 0 for a rule without a limit.

    A difference of a ratio metric, or a factor of another, is turned into the other by the baseline's value.
    """
    if rule.limit is None:
        return 0.0
    name, limit = rule.limit
    if name == "max_drop" and found.scale == "ratio":
        worst = baseline - limit if found.higher_is_better else baseline + limit
        return abs(math.log(worst / baseline)) if worst > 0 else math.inf
    if name == "max_ratio" and found.scale == "difference":
        if baseline <= 0:
            raise NotEvaluable(
                f"max_ratio: {rule.metric} of the baseline is {baseline:g}, and a factor needs more than 0"
            )
        return baseline * (1 - 1 / limit) if found.higher_is_better else baseline * (limit - 1)
    return math.log(limit) if name == "max_ratio" else limit


def _margin(found: Comparison, tolerated: float | None) -> float | None:
    """``tolerated`` as shown: of a ratio metric a factor."""
    return math.exp(tolerated) if tolerated is not None and found.scale == "ratio" else tolerated


def _p_of_value(figure: Figure, bound: float, distance: float, sign: int, se: float) -> tuple[float, str]:
    """p of "the true value lies on the other side of ``bound``", where ``sign`` says which side is to be shown; two-sided."""
    count, n = yeses(figure.examples) if figure.metric.is_share else None, len(figure.ids)
    if count is None:
        return _p_beyond(distance, se, n), "t test of the value"
    side = "greater" if sign > 0 else "less"
    p = float(stats.binomtest(count, n, bound, alternative=side).pvalue)
    return min(1.0, 2 * p), "exact binomial test of the value"


def _p_beyond(distance: float, se: float, n: int) -> float:
    """p of a mean that lies ``distance`` on the right side of a limit: twice the one-sided p of the t test with n - 1 degrees of
    freedom, so that it agrees with the two-sided interval. Without any spread it is 0 or 1."""
    if se == 0 or math.isinf(distance):
        return 0.0 if distance >= 0 else 1.0
    return min(1.0, 2 * float(stats.t.sf(distance / se, n - 1)))
