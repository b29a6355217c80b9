"""One metric of two models on the same rows: how large the change is, how sure, and what it comes to in one word.

=================  ==================================================================================================
equivalent         the whole interval is within the practical margin: if there is a change, it does not matter
improved           not that; the interval lies on the good side of no change, and p < alpha
regressed          not that; the interval lies on the bad side, and p < alpha
changed            the same of a metric that has no good direction (the length of an answer)
inconclusive       none of these: the rows are too few, or the change too small, to tell
not evaluable      the two sides cannot be compared; ``reason`` says why
=================  ==================================================================================================

Interval and p must both say so: a percentile interval and an exact test disagree near the edge. Intervals come from the
paired bootstrap over rows, p from exchanging the two models row by row, or from McNemar's exact test where every row is a yes or a
no. Ratio metrics (perplexity) are computed as logarithms, with documents as the unit, and shown as factors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ftcli.core.errors import UsageError
from ftcli.metrics.figures import Figure, shown
from ftcli.metrics.names import Metric
from ftcli.metrics.statistics import (
    EXACT_ROWS,
    detectable,
    disagreements,
    fewest_rows,
    interval,
    mcnemar,
    paired_error,
    paired_interval,
    permutation_p,
    standard_error,
    wilson,
    yeses,
)


@dataclass(frozen=True)
class Drawing:
    """How intervals and p-values are drawn; the same drawing gives the same numbers."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0

    @property
    def alpha(self) -> float:
        return round(1 - self.confidence, 12)


@dataclass(frozen=True)
class Comparison:
    """The second model against the first, on the ``n`` rows that both have; ``left_out`` rows have only one of them.

    ``change`` and ``ci`` are as shown (of a ratio metric a factor), not turned so that up is good. ``se`` is the standard error of
    the paired change, of a ratio metric that of its logarithm, which is about relative. ``mde``, the minimum detectable effect, is
    the size of a true change that these rows would show at 80 % power (of a ratio metric a factor above 1), None where they can
    show none. ``margin`` is on the scale of ``mde``. Holm's correction is a gate's (`ftcli.metrics.gates`): these stand alone.
    """

    metric: str
    scale: Literal["difference", "ratio"]
    n: int
    change: float | None
    ci: tuple[float, float] | None
    se: float | None
    p: float | None
    mde: float | None
    margin: float | None
    test: str
    status: str
    reason: str
    higher_is_better: bool | None
    left_out: int = 0

    def oriented(self) -> tuple[float, float] | None:
        """``ci`` as differences (logarithms of a ratio metric's factors) turned so that more is better; None without one.

        Without a good direction it stays as it is.
        """
        if self.ci is None:
            return None
        low, high = (math.log(bound) for bound in self.ci) if self.scale == "ratio" else self.ci
        return (-high, -low) if self.higher_is_better is False else (low, high)

    def allowance(self) -> float | None:
        """``margin`` on the scale of `oriented`: a difference, or the logarithm of a factor."""
        return math.log(self.margin) if self.margin is not None and self.scale == "ratio" else self.margin


def compare(first: Figure, second: Figure, drawing: Drawing, *, margin: float | None = None) -> Comparison:
    """Compare one metric on the rows that both sides have. ``margin`` stands in for the metric's own.

    Raises `UsageError` for a margin that is none: below 0, or a factor below 1.
    """
    metric = second.metric
    margin = metric.margin if margin is None else margin
    if margin is not None and not margin >= (1 if metric.is_ratio else 0):
        wanted = "a factor of 1 or more, as 1.02" if metric.is_ratio else "a difference of 0 or more"
        raise UsageError(f"margin {margin:g} for {second.name}: {wanted} is needed")
    theirs = set(first.ids)
    common = [row for row in second.ids if row in theirs]
    left_out = len(first.ids) + len(second.ids) - 2 * len(common)
    before, after = first.only(common), second.only(common)
    reason = _unlike(before, after) or _unusable(before, after, left_out)
    scale: Literal["difference", "ratio"] = "ratio" if metric.is_ratio else "difference"
    nothing = Comparison(
        second.name, scale, len(common), None, None, None, None, None, margin, "", "not evaluable", reason,
        metric.higher_is_better, left_out,
    )  # fmt: skip
    if reason:
        return nothing
    return _measured(nothing, before, after, drawing)


def spread_of(figure: Figure, drawing: Drawing) -> tuple[tuple[float, float], float]:
    """The interval and standard error of one figure, as computed (of a ratio metric the logarithm's); the error of one row is NaN.

    Shares of yes and no have Wilson's interval, everything else that of the bootstrap.
    """
    error, count = standard_error(figure.examples), yeses(figure.examples) if figure.metric.is_share else None
    if count is not None:
        return wilson(count, len(figure.ids), drawing.confidence), error
    draw = {"resamples": drawing.resamples, "seed": drawing.seed}
    return interval(figure.examples, confidence=drawing.confidence, **draw), error


def _measured(entry: Comparison, before: Figure, after: Figure, drawing: Drawing) -> Comparison:
    first, second = before.examples, after.examples
    draw = {"resamples": drawing.resamples, "seed": drawing.seed}
    low, high = paired_interval(first, second, confidence=drawing.confidence, **draw)
    se = paired_error(first, second)
    differing = disagreements(first, second) if after.metric.is_share else None
    if differing is not None:
        p, test = mcnemar(*differing), f"exact McNemar, {differing[0]} against {differing[1]}"
        spread = math.sqrt(sum(differing)) / len(first)  # of the difference, if there is none in truth
    else:
        p, spread = permutation_p(first, second, **draw), se
        drawn = "all exchanges" if len(first) <= EXACT_ROWS else f"{drawing.resamples:,} exchanges"
        test = f"permutation, {drawn}"
    delta = second.value() - first.value()
    if not all(map(math.isfinite, (delta, low, high, se, p))):
        return replace(entry, reason="not every resample of the rows has a value")
    if after.metric.is_ratio and not all(0 < shown(after.metric, value) < math.inf for value in (delta, low, high)):
        return replace(entry, reason="the factor is too large or too small for a number")
    entry = replace(
        entry,
        change=shown(after.metric, delta),
        ci=(shown(after.metric, low), shown(after.metric, high)),
        se=se,
        p=p,
        mde=_smallest_effect(after.metric, spread, len(first), drawing.alpha, binary=differing is not None),
        test=test + (f"; {entry.left_out} left out that one side lacks" if entry.left_out else ""),
    )
    return replace(entry, status=_status(entry, p, drawing.alpha))


def _status(found: Comparison, p: float, alpha: float) -> str:
    interval, allowance = found.oriented(), found.allowance()
    assert interval is not None  # there is a p, so there is an interval
    low, high = interval
    if allowance is not None and found.mde is not None and -allowance < low and high < allowance:
        return "equivalent"  # fewer rows than any test needs are never enough, though none of them differs
    if p < alpha and (low > 0 or high < 0):
        if found.higher_is_better is None:
            return "changed"
        return "improved" if low > 0 else "regressed"
    return "inconclusive"


def _smallest_effect(metric: Metric, spread: float, n: int, alpha: float, *, binary: bool) -> float | None:
    """The minimum detectable effect; None for fewer rows than any test needs.

    Of yes and no it is at least the fewest rows that must change, all one way, before McNemar's test can tell: rows that happen
    to agree everywhere say little about how often others would not.
    """
    if n < fewest_rows(alpha):
        return None
    effect = detectable(spread, alpha=alpha)
    effect = shown(metric, max(effect, fewest_rows(alpha) / n) if binary else effect)
    return effect if math.isfinite(effect) else None


def _unlike(first: Figure, second: Figure) -> str:
    """Why a difference of the two would mean nothing; "" if it means something."""
    other = second.name.replace("perplexity", "bits_per_byte") if "perplexity" in second.name else "bits_per_byte"
    hint = f"; with two tokenizers use {other}" if second.metric.is_ratio else ""
    if first.comparable != second.comparable:
        return f"measured on different terms: {_parts(first.comparable, second.comparable)}{hint}"
    if first.signature != second.signature:
        return f"computed differently: {_parts(first.signature, second.signature)}"
    kinds = (first.examples.kind, first.metric.is_ratio), (second.examples.kind, second.metric.is_ratio)
    if kinds[0] != kinds[1] or first.examples.statistics.shape != second.examples.statistics.shape:
        return "kept as different statistics"
    if second.metric.is_ratio and (_tokens(first) != _tokens(second)).any():
        return f"the same rows have {_tokens(first).sum():g} tokens and {_tokens(second).sum():g}: use {other}"
    return ""


def _unusable(first: Figure, second: Figure, left_out: int) -> str:
    if len(first.ids) < 2:
        few = "no row" if not first.ids else "one row"
        return f"{few} that both sides have ({left_out} have one of them only)" if left_out else f"{few} only"
    values = np.concatenate([first.examples.statistics, second.examples.statistics], axis=1)
    broken = int((~np.isfinite(values).all(axis=1)).sum())
    if broken:
        return f"{broken} of {len(values)} rows have no value (NaN)"
    if not (math.isfinite(first.examples.value()) and math.isfinite(second.examples.value())):
        return "a side has no value (NaN)"
    return ""


def _parts(first: str, second: str) -> str:
    """The parts of two signatures in which they differ."""
    own, other = first.split("|"), second.split("|")
    sides = [part for part in own if part not in other], [part for part in other if part not in own]
    return " against ".join(", ".join(filter(None, side)) or "nothing" for side in sides)


def _tokens(figure: Figure) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return figure.examples.statistics[:, 1]
