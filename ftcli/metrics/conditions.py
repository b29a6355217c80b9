"""The figures that a gate's condition names (``rougeL.delta < -0.01``), looked up for one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ftcli.metrics.comparison import Comparison
from ftcli.metrics.evidence import NotEvaluable, Pairs, Test, check_fit
from ftcli.metrics.figures import Figure
from ftcli.metrics.rules import Rule, split_name


@dataclass(frozen=True)
class Condition:
    """``values`` of every name, of Holm's p still the raw one; ``tests`` the test behind each name that asks for it.

    ``pair`` holds baseline, model and their comparison if the condition is about one metric of one model, else None.
    """

    values: Mapping[str, float]
    tests: Mapping[str, Test]
    pair: tuple[Figure, Figure, Comparison] | None


def look_up(rule: Rule, pairs: Pairs, model: str, against: str, unfit: Mapping[str, str]) -> Condition:
    """Find what ``rule.expr`` names, for ``model`` where it names none. Raises `NotEvaluable` for what has no value."""
    metrics = {name for one in pairs.models.values() for name in one}
    values: dict[str, float] = {}
    tests: dict[str, Test] = {}
    asked: dict[tuple[str, str], tuple[Figure, Figure, Comparison]] = {}
    for name in rule.expression().names:
        label, metric, field = split_name(name, metrics, list(pairs.models))
        label = label or model
        check_fit(metric, unfit, [label] if field == "value" else [label, against])
        if field == "value":
            values[name] = _value(pairs.figure(label, metric), rule)
            continue
        asked[label, metric] = pairs.get(label, against, metric, rule.min_n)
        found = _field(field, *asked[label, metric])
        if found is None:
            raise NotEvaluable(f"{name} has no value")
        values[name] = found
        if field == "p_holm":
            tests[name] = (label, against, metric, "change")
    return Condition(values, tests, next(iter(asked.values())) if len(asked) == 1 else None)


def _value(figure: Figure, rule: Rule) -> float:
    if len(figure.ids) < rule.min_n:
        raise NotEvaluable(f"{figure.name}: {len(figure.ids)} rows, {rule.min_n} are needed")
    return figure.value()


def _field(field: str, before: Figure, after: Figure, comparison: Comparison) -> float | None:
    match field:
        case "baseline":
            return before.value()
        case "delta":
            return after.value() - before.value()
        case "ratio":
            return after.value() / before.value() if before.value() else None
        case "ci_low" | "ci_high":
            return comparison.ci[field == "ci_high"] if comparison.ci else None
        case "p" | "p_holm":
            return comparison.p
        case "n":
            return comparison.n
        case "mde":
            return comparison.mde
    raise ValueError(f"no field {field}")
