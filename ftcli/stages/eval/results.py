"""Figures and comparisons as the JSON of metrics.json. Needs no model and no tokenizer.

``metrics``      {metric: {title, family, higher_is_better, decimals, help, is_share, is_ratio, margin}}
``models``       {label: {metric: {value, n, ci, se, signature}}}
``comparisons``  [{model, against, metric, scale, n, change, ci, se, p, mde, margin, test, status, reason}]; what they mean
                 is told in `ftcli.metrics.comparison`
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from ftcli.metrics.comparison import Comparison, Drawing, compare, spread_of
from ftcli.metrics.figures import Figure, Figures, shown
from ftcli.stages.eval.config import EvalConfig

Json = dict[str, Any]


def drawing_of(config: EvalConfig) -> Drawing:
    return Drawing(config.confidence, config.resamples, config.seed)


def described_models(figures: Mapping[str, Figures], drawing: Drawing) -> Json:
    """The entries ``metrics`` and ``models``."""
    metrics = {name: asdict(figure.metric) for own in figures.values() for name, figure in own.items()}
    models = {
        label: {name: described(figure, drawing) for name, figure in own.items()} for label, own in figures.items()
    }
    return {"metrics": metrics, "models": models}


def described(figure: Figure, drawing: Drawing) -> Json:
    """One entry of ``models``. A ratio metric's error is on the log scale, which is about relative."""
    ends, error = spread_of(figure, drawing)
    ci = [shown(figure.metric, end) for end in ends]
    return {
        "value": finite(figure.value()),
        "n": len(figure.ids),
        "ci": ci if all(map(math.isfinite, ci)) else None,
        "se": finite(error),
        "signature": figure.signature,
    }


def compared(
    figures: Mapping[str, Figures], pairs: Iterable[tuple[str, str]], drawing: Drawing
) -> list[tuple[str, str, Comparison]]:
    """Every metric that both models of each pair ``(model, against)`` have."""
    return [
        (model, against, compare(figures[against][name], figure, drawing))
        for model, against in pairs
        for name, figure in figures[model].items()
        if name in figures[against]
    ]


def listed(found: Iterable[tuple[str, str, Comparison]], unfit: Mapping[str, str] | None = None) -> list[Json]:
    """``unfit`` are metrics whose figures mean nothing, with the reason: those of a judge that cannot judge."""
    unfit = unfit or {}
    found = [
        (model, against, replace(one, status="not evaluable", reason=unfit[one.metric]) if one.metric in unfit else one)
        for model, against, one in found
    ]
    return [{"model": model, "against": against, **asdict(comparison)} for model, against, comparison in found]


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
