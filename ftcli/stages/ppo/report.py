"""The report of a ppo run: report.html and summary.txt, made from the files beside them and nothing else.

The page loads nothing and runs nothing; what a model or a data set wrote is escaped by the template engine, and control and
direction characters are shown as what they are.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ftcli import __version__
from ftcli.core.artifacts import write_json
from ftcli.core.errors import BadData
from ftcli.data.rows import read_jsonl, write_jsonl
from ftcli.metrics import plots
from ftcli.metrics.pages import page_style, visible
from ftcli.metrics.plots import Point
from ftcli.stages.ppo.panels import histograms, panels
from ftcli.stages.ppo.summary import KINDS, duration, number, p_value, rows_of_changes, sentence, signed, summary_text

Json = Mapping[str, Any]
FIGURES, SAMPLES, HISTOGRAMS = "figures.json", "samples.jsonl", "histograms.jsonl"
SHOWN = 8
"""Prompts whose answers the page shows."""
MOST_WORDS = 2000
"""Longer answers are shown without marking what is new in them."""
PHASES = {
    "perf/time_gen": "Generate",
    "perf/time_reward": "Reward",
    "perf/time_score": "Score: old, reference, values",
    "perf/time_train": "Train",
}


def save_figures(
    folder: Path,
    records: Sequence[Json],
    changes: Json,
    alarms: Sequence[Json],
    samples: Sequence[Json],
    histograms: Sequence[Json],
    *,
    settings: Json,
    inputs: Sequence[Json],
) -> None:
    """Write what `write_report` reads.

    ``records`` are the lines of metrics.jsonl, ``changes`` what `ftcli.stages.ppo.held_out.compare` found, ``alarms``, ``samples``
    and ``histograms`` the records of `ftcli.stages.ppo.watch.Watch`, ``inputs`` names with ``ref`` and ``digest``.
    """
    figures = {
        "changes": changes,
        "alarms": alarms,
        "settings": settings,
        "inputs": inputs,
        "series": series_of(records),
    }
    write_json(folder / FIGURES, figures)
    write_jsonl(folder / SAMPLES, [dict(record) for record in samples])
    write_jsonl(folder / HISTOGRAMS, [dict(record) for record in histograms])


def series_of(records: Sequence[Json]) -> dict[str, list[tuple[int, float | None]]]:
    """``(step, value)`` of every metric, holes included."""
    found: dict[str, list[tuple[int, float | None]]] = {}
    for record in records:
        for name, value in record.items():
            if name != "step":
                found.setdefault(name, []).append((record["step"], value))
    return found


def write_report(folder: Path) -> None:
    """Report on what `save_figures` left in ``folder``. Raises `BadData` if a file is missing or torn."""
    try:
        figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        samples, drawn = list(read_jsonl(folder / SAMPLES)), list(read_jsonl(folder / HISTOGRAMS))
    except (FileNotFoundError, ValueError) as error:
        raise BadData(f"{folder}: no report can be made: {error}", "run `ftcli ppo`, which writes it") from None
    (folder / "summary.txt").write_text(summary_text(figures, samples), encoding="utf-8")
    (folder / "report.html").write_text(render_report(figures, samples, drawn), encoding="utf-8")


def render_report(figures: Json, samples: Sequence[Json], drawn: Sequence[Json]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "visible": visible,
        "number": number,
        "signed": signed,
        "p_value": p_value,
        "duration": duration,
    }
    source = resources.files("ftcli.stages.ppo").joinpath("report.html").read_text(encoding="utf-8")
    rows = rows_of_changes(figures["changes"])
    groups = panels(figures["series"])
    if groups:
        groups[0]["charts"] += histograms(drawn)[:1]
        groups[min(1, len(groups) - 1)]["charts"] += histograms(drawn)[1:]
    return environment.from_string(source).render(
        version=__version__,
        style=page_style(),
        sentence=sentence(figures["changes"]),
        changes=figures["changes"],
        rows=rows,
        kinds=KINDS,
        has_gap=any(row["gap"] is not None for row in rows),
        alarms=figures["alarms"],
        rollouts=len(figures["series"].get("objective/scores", ())),
        groups=groups,
        samples=answers_through_training(samples, SHOWN),
        time=time_split(figures["series"]),
        settings=figures["settings"],
        inputs=figures["inputs"],
    )


def time_split(series: Json) -> dict[str, Any]:
    """Seconds of each phase over all rollouts as a picture, and the speed of sampling and training."""
    totals = {title: sum(value or 0.0 for _, value in series.get(name, ())) for name, title in PHASES.items()}
    whole = sum(totals.values())
    if not whole:
        return {}
    points = [
        Point(title, value, None, None, f"{value:,.0f} s, {value / whole:.0%}") for title, value in totals.items()
    ]
    speeds = {
        title: sum(values) / len(values)
        for name, title in (("perf/gen_tok_s", "sampled"), ("perf/train_tok_s", "trained on"))
        if (values := [value for _, value in series.get(name, ()) if value is not None])
    }
    return {"seconds": whole, "svg": Markup(plots.bars(points)), "speeds": speeds}


def answers_through_training(samples: Sequence[Json], count: int) -> list[dict[str, Any]]:
    """For the first ``count`` prompts the answers at the start, half-way and at the end."""
    rollouts = sorted({record["rollout"] for record in samples})
    if not rollouts:
        return []
    middle = min(rollouts, key=lambda rollout: abs(rollout - rollouts[-1] / 2))
    stages = list(dict.fromkeys((rollouts[0], middle, rollouts[-1])))
    found: dict[str, dict[str, Any]] = {}
    for record in samples:
        if record["rollout"] in stages:
            one = found.setdefault(record["id"], {"prompt": record["prompt"], "answers": {}})
            one["answers"].setdefault(record["rollout"], {})[record["decoding"]] = dict(record)
    shown = list(found.values())[:count]
    for one in shown:
        start = one["answers"].get(stages[0], {})
        for rollout, answers in one["answers"].items():
            for decoding, answer in answers.items():
                old = start[decoding]["text"] if rollout != stages[0] and decoding in start else None
                answer["pieces"] = pieces(old, answer["text"])
    return shown


def pieces(old: str | None, new: str) -> list[tuple[bool, str]]:
    """``new`` in pieces, each with whether it is not in ``old``, word by word; white space never is."""
    parts = re.split(r"(\s+)", new)  # words at even places, what is between them at odd ones
    words, before = parts[::2], (old or "").split()
    if old is None or len(words) + len(before) > MOST_WORDS:
        return [(False, new)]
    matcher = difflib.SequenceMatcher(None, before, words, autojunk=False)
    known = {2 * (block.b + offset) for block in matcher.get_matching_blocks() for offset in range(block.size)}
    return [(place % 2 == 0 and place not in known, part) for place, part in enumerate(parts) if part]
