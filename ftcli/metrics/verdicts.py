"""What a gate decided: one record for each rule and model, the exit code, and the same in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ftcli.core.errors import GateFailed, GateNotEvaluable
from ftcli.metrics.evidence import Evidence
from ftcli.metrics.names import Metric
from ftcli.metrics.rules import Mode, Rule

Status = Literal["passed", "failed", "inconclusive", "not evaluable"]
ORDER: tuple[Status, ...] = ("failed", "not evaluable", "inconclusive", "passed")
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Result:
    """What became of a rule for one model. ``ci`` is that of the change, or of the value where the rule limits the value;
    ``margin`` what was allowed or, for a value, its limit."""

    rule: Rule
    model: str
    against: str
    metric: str
    mode: str
    status: Status
    message: str
    value: float | None = None
    baseline: float | None = None
    scale: str = ""
    n: int | None = None
    change: float | None = None
    ci: tuple[float, float] | None = None
    se: float | None = None
    p: float | None = None
    p_holm: float | None = None
    mde: float | None = None
    margin: float | None = None
    test: str = ""

    @property
    def severity(self) -> str:
        return self.rule.severity

    @property
    def about(self) -> str:
        return f"{self.model}: {self.rule}" if self.model else str(self.rule)

    def to_json(self) -> dict[str, Any]:
        own = {field.name: _finite(getattr(self, field.name)) for field in fields(self) if field.name != "rule"}
        return {"rule": self.rule.model_dump(), "text": str(self.rule), "severity": self.severity, **own}


def _finite(value: Any) -> Any:
    """None for a number, or an interval, that JSON has no word for."""
    numbers = value if isinstance(value, tuple) else (value,)
    return None if any(isinstance(one, float) and not math.isfinite(one) for one in numbers) else value


@dataclass(frozen=True)
class Verdict:
    """What a gate decided, and on which terms."""

    exit_code: int
    headline: str
    results: tuple[Result, ...]
    mode: str
    alpha: float
    strict: bool

    def to_json(self) -> dict[str, Any]:
        """gate.json."""
        return {
            "mode": self.mode,
            "alpha": self.alpha,
            "strict": self.strict,
            "exit_code": self.exit_code,
            "headline": self.headline,
            "results": [one.to_json() for one in self.results],
        }

    def fact(self) -> dict[str, Any]:
        """What the stage's facts say under ``gate``, from which the controller raises the error."""
        stopping = [one for one in self.results if one.severity == "hard" and one.status in ("failed", "not evaluable")]
        lines = [f"  {one.status}: {one.about}: {one.message}" for one in stopping]
        hints = {
            GateFailed.exit_code: "the report shows the rows that lost most; the same command says this again",
            GateNotEvaluable.exit_code: "what cannot be judged does not pass: measure it, or take the rule out",
        }
        message = "\n".join([self.headline, *lines])
        return {"exit_code": self.exit_code, "message": message, "hint": hints.get(self.exit_code, "")}


def message(
    rule: Rule, mode: Mode, evidence: Evidence, p_holm: float | None, status: Status, metric: Metric, alpha: float
) -> str:
    """Figures, outcome, and how sure it is."""
    tail = [f"p {p_holm:.2g} (Holm)"] if p_holm is not None else []
    tail.append(f"n {evidence.n}")
    if evidence.mde is not None:
        tail.append(f"detectable {TIMES if evidence.scale == 'ratio' else ''}{evidence.mde:.3g}")
    return f"{_figures(evidence, metric)}: {_outcome(rule, mode, evidence, p_holm, status, alpha)}; {', '.join(tail)}"


def _outcome(rule: Rule, mode: Mode, evidence: Evidence, p_holm: float | None, status: Status, alpha: float) -> str:
    """The status in words. Where the table beside it has another word for the same change, this says why."""
    limit = f"{rule.limit[0]} {rule.limit[1]:g}" if rule.limit else ""
    margin = f"its margin {evidence.margin:g}" if evidence.margin is not None else ""
    within = f"within {limit or margin}" if limit or margin else "no worse"
    bad = "beyond" if rule.is_absolute else "worse"
    is_within = evidence.tolerated is not None and evidence.high <= evidence.tolerated
    match mode, status:
        case "point", "failed":
            return f"beyond {limit}" if limit else "worse"
        case "point", _:
            return f"within {limit}" if limit else "no worse"
        case _, "passed":
            shown = "shown to be " if mode == "non-inferior" else ""
            return shown + ("no worse" if evidence.high <= 0 and not rule.is_absolute else within)
        case "non-inferior", _:
            return f"not shown to be {within}" + (
                f": the interval is, and p is not below {alpha:g}" if is_within else ""
            )
        case _, "failed" if limit:
            return f"proven beyond {limit}" if rule.is_absolute else f"proven worse, and beyond {limit}"
        case _, "failed":
            allows = f": by no more than {margin}, which the rule does not grant without a limit" if is_within else ""
            return f"proven worse{allows}"
    is_sure, is_sure_alone = (p is not None and p < alpha and evidence.low > 0 for p in (p_holm, evidence.p))
    if is_sure:
        return f"proven worse, but neither beyond {limit} nor shown to be {within}"
    if is_sure_alone:
        return f"{bad} by itself (p {evidence.p:.2g}), and not proven beside the other checks, nor shown to be {within}"
    return f"neither proven {bad} nor shown to be {within}"


def _figures(evidence: Evidence, metric: Metric) -> str:
    d = metric.decimals
    low, high = evidence.ci
    if evidence.baseline is None:
        return f"{metric.title} {evidence.value:.{d}f} [{low:.{d}f}, {high:.{d}f}]"
    values = f"{metric.title} {evidence.baseline:.{d}f} to {evidence.value:.{d}f}"
    if evidence.scale == "ratio":
        return f"{values}, {TIMES}{evidence.change:.3f} [{low:.3f}, {high:.3f}]"
    return f"{values}, {evidence.change:+.{d}f} [{low:+.{d}f}, {high:+.{d}f}]"


def headline(exit_code: int, results: Sequence[Result]) -> str:
    """``GATE FAILED (1 of 4 checks): lora: rougeL max_drop 0.01``."""
    counts = {status: sum(one.status == status and one.severity == "hard" for one in results) for status in ORDER}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    warned = sum(one.severity == "soft" and one.status != "passed" for one in results)
    told += f"{', ' if told else ''}{warned} of the soft ones not passed" if warned else ""
    if exit_code == 0:
        return f"GATE PASSED ({told})"
    status, word = ("failed", "FAILED") if exit_code == GateFailed.exit_code else ("not evaluable", "NOT EVALUABLE")
    which = [one.about for one in results if one.status == status and one.severity == "hard"]
    more = f", and {len(which) - 3} more" if len(which) > 3 else ""
    return f"GATE {word} ({told}): {'; '.join(which[:3])}{more}"
