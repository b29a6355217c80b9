"""The report on what people preferred: report.html (one file, no script, no network, light and dark), summary.txt, results.json
with every figure, votes.jsonl with every judgement as a votes file has it, and both_bad.jsonl with the prompts that no model
answered well.

Figures are `ftcli.human`'s: items are what is counted and tested, never single votes. All text is escaped by the template engine,
characters that hide or turn text are shown as what they are, and a content security policy forbids scripts and loading of anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ftcli import __version__
from ftcli.core.artifacts import write_json
from ftcli.data.rows import Row, write_jsonl
from ftcli.human.agreement import rank_agreement
from ftcli.human.graders import grader_table, position_bias
from ftcli.human.length import length_effect
from ftcli.human.preference import win_rate
from ftcli.human.scores import collapse, sources
from ftcli.human.strengths import bradley_terry
from ftcli.human.tasks import Item, Judgement, Task, to_json
from ftcli.metrics import plots
from ftcli.metrics.pages import page_style, visible
from ftcli.metrics.plots import Point
from ftcli.stages.rank.preferences import LEFT_OUT, Preferences
from ftcli.stages.rank.questions import Questions, held_out_prompts

Json = Mapping[str, Any]
SHOWN, CHARACTERS, LABEL_CHARACTERS = 10, 1500, 28
"""Prompts that the page shows with their votes, and how much of each text and of a model's name."""


def results_of(
    questions: Questions, task: Task, judgements: Sequence[Judgement], found: Preferences, *, seed: int
) -> dict[str, Any]:
    """The content of results.json."""
    items = _in_order(questions.items)
    models = sources(items)
    agreement = rank_agreement(items, judgements, seed=seed)
    return {
        "task": {
            "id": task.id,
            "guidelines": task.guidelines,
            "criteria": list(task.criteria),
            "overlap": task.overlap,
        },
        "models": models,
        "questions": questions.counts(),
        "judgements": _counts(judgements),
        "versus": [_versus(items, judgements, *pair, seed) for pair in combinations(models, 2)],
        "strengths": [
            {**asdict(one), "elo": one.elo, "elo_low": one.elo_low, "elo_high": one.elo_high}
            for one in (bradley_terry(items, judgements, seed=seed) if len(models) > 2 else ())
        ],
        "criteria": _criteria(items, judgements, task.criteria),
        "agreement": {**asdict(agreement), "words": agreement.words},
        "position": asdict(position_bias(judgements)),
        "graders": [asdict(row) for row in grader_table(items, judgements)],
        "preferences": found.counts(),
        "held_out_prompts": {split: len(prompts) for split, prompts in held_out_prompts(items).items()},
    }


def write_report(folder: Path, results: Json, questions: Questions, judgements: Sequence[Judgement]) -> None:
    write_json(folder / "results.json", results)
    (folder / "votes.jsonl").write_text("".join(f"{to_json(one)}\n" for one in judgements), encoding="utf-8")
    write_jsonl(folder / "both_bad.jsonl", _both_bad(questions, judgements))
    (folder / "summary.txt").write_text(summary_text(results), encoding="utf-8")
    (folder / "report.html").write_text(render_report(results, _shown(questions.items, judgements)), encoding="utf-8")


def summary_text(results: Json) -> str:
    """The report in a few lines for a terminal."""
    given, kept = results["judgements"], results["preferences"]
    lines = [
        f"{given['counted']} judgements, {given['graders']} grader{'' if given['graders'] == 1 else 's'}, "
        f"{results['questions']['items']} prompts, {kept['pairs']} preference pairs",
        *(text for one in results["versus"] for text in (one["text"], one["length"]["text"])),
        *(
            f"{one['source']}: {one['elo']:+.0f} Elo [{one['elo_low']:+.0f}, {one['elo_high']:+.0f}]"
            for one in results["strengths"]
        ),
        results["agreement"]["words"],
        *flags_of(results),
    ]
    return "\n".join(line for line in lines if line) + "\n"


def flags_of(results: Json) -> list[str]:
    """Why which grader's votes should be looked at; nothing is left out because of it."""
    return [
        f"look at the votes of {row['grader']}: {flag['reason']}" for row in results["graders"] for flag in row["flags"]
    ]


def render_report(results: Json, shown: Sequence[Json]) -> str:
    environment = Environment(
        loader=PackageLoader("ftcli.stages.rank", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"visible": visible, "share": share, "cut": _cut}
    return environment.get_template("report.html").render(
        style=page_style(),
        results=results,
        shown=shown,
        flags=flags_of(results),
        charts=_charts(results),
        left_out=LEFT_OUT,
        version=__version__,
    )


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _versus(items: Sequence[Item], judgements: Sequence[Judgement], first: str, second: str, seed: int) -> Json:
    scores = collapse(items, judgements, first, second)
    found, length = win_rate(scores, seed=seed), length_effect(scores)
    told = found.text(first, second)
    return {
        "first": first,
        "second": second,
        **asdict(found),
        "text": told,
        "length": {**asdict(length), "text": length.text()},
    }


def _in_order(items: Sequence[Item]) -> list[Item]:
    """``items`` so that the models come up in the order of the inputs: the first is what the others are compared with."""
    place = {source: number for number, source in enumerate(sources(sorted(items, key=_most_models)))}
    return sorted(items, key=lambda item: [place[one.source] for one in item.candidates])


def _most_models(item: Item) -> int:
    return -len({one.source for one in item.candidates})


def _counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    verdicts = Counter(one.verdict for one in judgements if not one.is_repeat)
    return {
        "counted": sum(one.counts for one in judgements),
        "ranked": verdicts["ranked"],
        "both_bad": verdicts["both_bad"],
        "skipped": verdicts["skip"],
        "repeats": sum(one.is_repeat for one in judgements),
        "graders": len({one.grader for one in judgements}),
    }


def _criteria(
    items: Sequence[Item], judgements: Sequence[Judgement], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """For each criterion how often each model's answer was named, or ``tie``; an answer of several models counts for each."""
    models: dict[tuple[str, str], set[str]] = {}
    for item in items:
        for one in item.candidates:
            models.setdefault((item.id, one.id), set()).add(one.source)
    named: dict[str, Counter[str]] = {name: Counter() for name in names}
    for judgement in judgements:
        for name, answer in judgement.criteria.items() if judgement.counts else ():
            named[name].update(["tie"] if answer == "tie" else models[judgement.item, answer])
    return {name: dict(counts.most_common()) for name, counts in named.items()}


def _both_bad(questions: Questions, judgements: Sequence[Judgement]) -> list[Row]:
    graders: dict[str, list[str]] = {}
    for one in judgements:
        if one.verdict == "both_bad" and one.counts:
            graders.setdefault(one.item, []).append(one.grader)
    return [
        {
            "id": questions.rows[item.id],
            "prompt": item.prompt,
            "meta": {"split": item.split, "graders": graders[item.id]},
        }
        for item in questions.items
        if item.id in graders
    ]


def _charts(results: Json) -> list[dict[str, Any]]:
    """A picture of the win rates, and for three or more models of their strengths."""
    rates = [
        Point(
            _cut(f"{one['second']} / {one['first']}", LABEL_CHARACTERS),
            one["rate"],
            one["low"],
            one["high"],
            f"{one['wins']} : {one['ties']} : {one['losses']}",
        )
        for one in results["versus"]
        if one["rate"] is not None
    ]
    even = [Point("no difference", 0.5, None, None, "", True)] if rates else []
    strengths = [
        Point(_cut(one["source"], LABEL_CHARACTERS), one["elo"], one["elo_low"], one["elo_high"], "", place == 0)
        for place, one in enumerate(results["strengths"])
    ]
    charts = [
        ("Win rates", "Ties count half. At the right: won, tied, lost. Intervals resample prompts.", even + rates),
        ("Strengths", "Bradley-Terry on the scale of chess; the first model is 0.", strengths),
    ]
    return [
        {"title": title, "note": note, "svg": Markup(plots.dots(points))} for title, note, points in charts if points
    ]


def _shown(items: Sequence[Item], judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """The first few judged prompts, which were drawn at random, with all that was said of them."""
    said: dict[str, list[Judgement]] = {}
    for one in judgements:
        said.setdefault(one.item, []).append(one)
    judged = [item for item in items if item.id in said][:SHOWN]
    return [
        {
            "item": item.id,
            "split": item.split,
            "prompt": item.prompt,
            "answers": [
                {
                    "models": ", ".join(dict.fromkeys(c.source for c in item.candidates if c.id == one.id)),
                    "text": one.text,
                    "ranks": ", ".join(
                        f"{vote.grader}: {vote.ranks.get(one.id, vote.verdict.replace('_', ' '))}"
                        + (" (again)" if vote.is_repeat else "")
                        for vote in said[item.id]
                    ),
                }
                for one in item.distinct
            ],
            "notes": [(vote.grader, vote.note) for vote in said[item.id] if vote.note],
        }
        for item in judged
    ]


def _cut(text: str, limit: int = CHARACTERS) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}\u2026"
