"""A gate's rules: what may not get worse, by how much, and against which model. Imports nothing heavy.

{metric: rougeL, max_drop: 0.01}                      against the baseline, 0.01 worse at most
{metric: perplexity, max_ratio: 1.05}                 worse by a factor of 1.05 at most
{metric: hit_max_rate, max: 0.05}                     the figure itself
{metric: general.nll, model: ppo, against: lora}      between two models
{expr: "rougeL.ci_low < -0.02", severity: soft}       a condition that is true when the rule is broken
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from ftcli.core.config import nearest
from ftcli.metrics.expressions import Expression, parse_expression
from ftcli.metrics.names import FROM_0_TO_1, METRICS

Mode = Literal["proven", "non-inferior", "point"]
LIMITS = ("max_drop", "max_ratio", "max", "min")


class Rule(BaseModel):
    """One rule: ``metric`` with at most one limit, or ``expr``. Limits are never written in percent."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    metric: str = ""
    """What is judged."""
    model: str = ""
    """The model that is judged; every one but the baseline unless named."""
    against: str = ""
    """The model that it is compared with; the baseline unless named."""
    max_drop: float | None = Field(default=None, ge=0)
    """How much worse it may be, on the metric's scale."""
    max_ratio: float | None = Field(default=None, ge=1)
    """By what factor it may be worse."""
    max: float | None = None
    """The largest value allowed, compared with nothing."""
    min: float | None = None
    """The smallest value allowed, compared with nothing."""
    mode: Mode | None = None
    """How this rule decides; the gate's mode unless given."""
    severity: Literal["hard", "soft"] = "hard"
    """A soft rule warns only."""
    min_n: int = Field(default=2, ge=2)
    """With fewer rows than this the rule cannot be judged."""
    expr: str = ""
    """A condition in place of a metric: the rule is broken when it is true."""

    @property
    def limit(self) -> tuple[str, float] | None:
        """The name and value of its limit, or None."""
        return next(((name, value) for name in LIMITS if (value := getattr(self, name)) is not None), None)

    @property
    def is_absolute(self) -> bool:
        """Whether it judges a value and no change."""
        return self.max is not None or self.min is not None

    def expression(self) -> Expression:
        return parse_expression(self.expr)

    def __str__(self) -> str:
        """The rule in a few words, without its model: ``rougeL max_drop 0.01 against lora``."""
        limit = f"{self.limit[0]} {self.limit[1]:g}" if self.limit else "not worse"
        said = [self.expr or f"{self.metric} {limit}"]
        said += [f"against {self.against}"] if self.against else []
        said += [f"({self.mode})"] if self.mode else []
        return " ".join(said)

    @field_validator("expr")
    @classmethod
    def _readable(cls, text: str) -> str:
        if text:
            check_expression(text)
        return text

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name:
            _check_metric(name)
        return name

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict | Rule):
            raise ValueError(f"a rule is a mapping such as {{metric: rougeL, max_drop: 0.01}}, not {value!r}")
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> Rule:
        if bool(self.metric) == bool(self.expr):
            raise ValueError("a rule has either a metric or an expr")
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if self.expr and (given or self.mode):
            raise ValueError(
                f"an expr decides by itself: leave out {', '.join([*given, *(['mode'] * bool(self.mode))])}"
            )
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two limits: write two rules")
        if self.is_absolute and self.against:
            raise ValueError(f"{given[0]} limits the value itself, which is compared with nothing: leave out against")
        if self.model and self.model == self.against:
            raise ValueError(f"{self.model} is to be compared with itself")
        self._check_scale()
        return self

    def _check_scale(self) -> None:
        """What is known of the metrics of `METRICS` beforehand."""
        metric = METRICS.get(self.metric)
        if metric is None:
            return
        if metric.higher_is_better is None and not self.is_absolute:
            raise ValueError(f"neither direction of {self.metric} is worse by itself: give max or min, or an expr")
        limit = self.limit
        if self.metric in FROM_0_TO_1 and limit and limit[0] != "max_ratio" and not 0 <= limit[1] <= 1:
            raise ValueError(f"{limit[0]} {limit[1]:g}: {self.metric} is a share from 0 to 1, so 5 % is 0.05")

    @model_serializer
    def _only_what_was_said(self) -> dict[str, Any]:
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) != _default(name)}


def _default(name: str) -> Any:
    return Rule.model_fields[name].default


def check_expression(text: str) -> None:
    """Check what can be checked of a condition before anything is measured: syntax, fields, the names of ftcli's own metrics.

    Raises `ValueError`. Names with more dots are those of suites, judges, functions or of one model, which are known later
    (`problems_of`).
    """
    for name in parse_expression(text).names:
        metric = name.rpartition(".")[0]
        _check_metric(metric)


def _check_metric(name: str) -> None:
    if "." not in name and name not in METRICS:
        known = f"known: {', '.join(METRICS)}, and names with a dot such as general.nll"
        raise ValueError(f"unknown metric {name}; {nearest(name, METRICS) or known}")


def split_name(name: str, metrics: Collection[str], labels: Collection[str]) -> tuple[str, str, str]:
    """``(label, metric, field)`` of a name in a condition; the label is empty where none is written.

    Raises `ValueError` for a metric that is not among ``metrics``, or a label that is not among ``labels``, with the nearest one.
    """
    rest, _, field = name.rpartition(".")
    if rest in metrics:
        return "", rest, field
    inside = [(label, rest.removeprefix(f"{label}.")) for label in labels if rest.startswith(f"{label}.")]
    for label, metric in inside:
        if metric in metrics:
            return label, metric, field
    if not inside and (known := [metric for metric in metrics if rest.endswith(f".{metric}")]):
        raise ValueError(f"{name}: {unknown_label(rest.removesuffix(f'.{max(known, key=len)}'), labels)}")
    raise ValueError(f"{name}: {unknown_metric(inside[0][1] if inside else rest, metrics)}")


def unknown_metric(name: str, metrics: Collection[str]) -> str:
    return f"no metric {name} was measured; {nearest(name, metrics) or 'measured: ' + ', '.join(sorted(metrics))}"


def unknown_label(label: str, labels: Collection[str]) -> str:
    return f"no model {label} was measured; {nearest(label, labels) or 'measured: ' + ', '.join(labels)}"


def problems_of(rule: Rule, metrics: Collection[str], labels: Collection[str]) -> list[str]:
    """What ``rule`` names that is not there: models not in ``labels``, metrics not in ``metrics``."""
    found = [unknown_label(label, labels) for label in (rule.model, rule.against) if label and label not in labels]
    if rule.metric and rule.metric not in metrics:
        found.append(unknown_metric(rule.metric, metrics))
    for name in rule.expression().names if rule.expr else ():
        try:
            split_name(name, metrics, labels)
        except ValueError as error:
            found.append(str(error))
    return found
