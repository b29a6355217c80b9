"""The pictures of a ppo run: which metrics are drawn together, and what to look for in each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from markupsafe import Markup

from ftcli.metrics import plots
from ftcli.metrics.plots import Line

Series = Mapping[str, Sequence[tuple[float, float | None]]]
MOST_POINTS = 300
"""Longer curves are drawn as means of neighbours."""


class Curve(NamedTuple):
    """One metric of a panel; ``spread`` is a metric drawn as a band around it, ``is_eval`` one of held-out prompts."""

    label: str
    metric: str
    spread: str = ""
    is_eval: bool = False


class Panel(NamedTuple):
    title: str
    note: str
    curves: tuple[Curve, ...]
    is_share: bool = False
    is_shown_constant: bool = True


GROUPS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Score and distance",
        (
            Panel(
                "Score",
                "mean of a rollout with one standard deviation",
                (
                    Curve("rollouts", "objective/scores", "objective/scores_std"),
                    Curve("held-out prompts", "eval/score", is_eval=True),
                ),
            ),
            Panel(
                "KL to the start",
                "nats a response; what the score cost",
                (Curve("rollouts", "objective/kl"), Curve("held-out prompts", "eval/kl", is_eval=True)),
            ),
            Panel("KL coefficient", "adapted towards kl_target", (Curve("", "objective/kl_coef"),), False, False),
            Panel(
                "Scores above the reference",
                "share above the 99th percentile of chosen answers",
                (Curve("", "reward/above_ref_p99"),),
                is_share=True,
            ),
        ),
    ),
    (
        "Answers",
        (
            Panel(
                "Length",
                "tokens a response",
                (Curve("mean", "rollout/length_mean"), Curve("95th percentile", "rollout/length_p95")),
            ),
            Panel(
                "Endings and variety",
                "shares of a rollout",
                (Curve("ended by itself", "rollout/eos_rate"), Curve("different token pairs", "rollout/distinct2")),
                is_share=True,
            ),
            Panel("Score against length", "correlation in a rollout", (Curve("", "rollout/score_length_corr"),)),
            Panel("Entropy", "nats a token; towards 0 the policy collapses", (Curve("", "policy/entropy_avg"),)),
        ),
    ),
    (
        "Updates",
        (
            Panel(
                "Explained variance",
                "of the returns by the critic; 1 is perfect",
                (Curve("", "val/explained_variance"),),
            ),
            Panel("Critic's loss", "in units of the normalised score", (Curve("", "loss/value_avg"),)),
            Panel("Clipped ratios", "share of tokens", (Curve("", "policy/clipfrac_avg"),)),
            Panel("KL of an update", "to the policy that sampled, nats a token", (Curve("", "policy/approxkl_avg"),)),
        ),
    ),
)


def panels(series: Series) -> list[dict[str, Any]]:
    """Groups of drawn panels; a panel whose metrics were not measured is left out."""
    found = []
    for title, members in GROUPS:
        drawn = [picture for panel in (*members, *_sources(title, series)) if (picture := _draw(panel, series))]
        if drawn:
            found.append({"title": title, "charts": drawn})
    return found


def _sources(group: str, series: Series) -> list[Panel]:
    """Panels of the sources of the reward, if it has several, and of those that are not optimised."""
    if group != GROUPS[0][0]:
        return []
    parts = [name[len("reward/") : -len("/mean")] for name in series if re.fullmatch("reward/.+/mean", name)]
    evals = [name.removeprefix("eval_reward/") for name in series if name.startswith("eval_reward/")]
    shown = [
        Panel(f"Source: {name}", "raw score", (Curve(name, f"reward/{name}/mean", f"reward/{name}/std"),))
        for name in parts
    ]
    unseen = [
        Panel(f"Not optimised: {name}", "on held-out prompts", (Curve(name, f"eval_reward/{name}", is_eval=True),))
        for name in evals
    ]
    return (shown if len(parts) > 1 else []) + unseen


def _draw(panel: Panel, series: Series) -> dict[str, Any] | None:
    lines = []
    for curve in panel.curves:
        points = series.get(curve.metric, ())
        if not any(value is not None for _, value in points):
            continue
        spread = [value for _, value in thinned(series[curve.spread])] if curve.spread in series else None
        lines.append(Line(curve.label, thinned(points), spread, curve.is_eval))
    values = [value for line in lines for _, value in line.points if value is not None]
    if not lines or (not panel.is_shown_constant and min(values) == max(values)):
        return None
    svg = Markup(plots.track(lines, x_label="rollout", is_share=panel.is_share))
    return {"title": panel.title, "note": panel.note, "svg": svg}


def thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most `MOST_POINTS`: means of neighbours that were measured, at the last one's place."""
    size = -(-len(points) // MOST_POINTS)
    found: list[tuple[float, float | None]] = []
    for first in range(0, len(points), size or 1):
        group = points[first : first + size]
        known = [value for _, value in group if value is not None]
        found.append((group[-1][0], fmean(known) if known else None))
    return found


def histograms(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """First rollout against last: scores and lengths."""
    if not records:
        return []
    first, last = records[0], records[-1]
    found = []
    for name, title, x_label in (
        ("score", "Scores, first and last rollout", "score"),
        ("length", "Lengths, first and last rollout", "tokens"),
    ):
        edges, shares, outside = _shares(first, last, name)
        svg = Markup(plots.outlines(edges, shares, x_label=x_label))
        note = f"{outside} beyond the axis, counted at its ends" if outside else "share of responses"
        found.append({"title": title, "note": note, "svg": svg})
    return found


def _shares(
    first: Mapping[str, Any], last: Mapping[str, Any], name: str
) -> tuple[list[float], dict[str, list[float]], int]:
    """Edges around what is not empty, shares by label, and how many lie outside the bins."""
    low, width = first[name]["low"], first[name]["width"]
    shown = [first] if first is last else [first, last]
    rows = [record[name]["counts"] for record in shown]
    used = [place for place in range(len(rows[0])) if any(row[place] for row in rows)] or [1]  # none was given a score
    start, end = max(used[0] - 1, 0), min(used[-1] + 1, len(rows[0]) - 1)
    edges = [low + (place - 1) * width for place in range(start, end + 2)]
    shares = {
        f"rollout {record['rollout']}": [count / max(sum(row), 1) for count in row[start : end + 1]]
        for record, row in zip(shown, rows, strict=True)
    }
    return edges, shares, sum(row[0] + row[-1] for row in rows)
