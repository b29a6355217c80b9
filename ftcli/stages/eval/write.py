"""Write the report folder.

metrics.json     all figures, comparisons and findings; figures.py tells its shape
examples.json    the statistics behind each figure, row by row: a baseline to keep in git, and what `ftcli compare` reads
samples.jsonl    one record a row: prompt, reference, and what each model answered
report.html, report.md, summary.txt; and with a gate gate.json, junit.xml and summary.md, which goes to the CI's step summary, too
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import write_json
from ftcli.core.stage import Artifact, Context
from ftcli.data.rows import Row, prompt_of, write_jsonl
from ftcli.metrics.figures import Figure, Figures, write_figures
from ftcli.metrics.junit import append_step_summary, junit_xml, summary_markdown
from ftcli.metrics.verdicts import Verdict
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import described_artifact
from ftcli.stages.eval.held_out import HeldOut
from ftcli.stages.eval.outcome import Answer, Outcome
from ftcli.stages.eval.report import render_report
from ftcli.stages.eval.results import Json
from ftcli.stages.eval.summary import summary_text
from ftcli.stages.eval.tables import legend, markdown, short_table

BY_ROW = ("rouge1", "rougeL", "exact_match", "token_f1")
"""Metrics whose value of each answer stands in samples.jsonl."""


@dataclass(frozen=True)
class Findings:
    """All that the stage found. ``content`` is that of metrics.json but for what is described here from the rest."""

    held_out: HeldOut
    outcomes: Mapping[str, Outcome]
    figures: Mapping[str, Figures]
    content: Json
    gate: Verdict | None


def write_report(ctx: Context[EvalConfig], found: Findings) -> None:
    """Fill the output ``report``, log each model's figures to metrics.jsonl, and leave the short table and the verdict in the
    facts."""
    folder = ctx.output("report")
    samples = list(sample_rows(found, ctx.config.samples_per_prompt))
    result = found.content | {"gate": None if found.gate is None else found.gate.to_json()}
    write_json(folder / "metrics.json", result)
    write_figures(folder / "examples.json", found.figures)
    write_jsonl(folder / "samples.jsonl", samples)
    table = short_table(result)
    (folder / "report.md").write_text(markdown(table, legend(result)), encoding="utf-8")
    (folder / "summary.txt").write_text(summary_text(result, samples), encoding="utf-8")
    (folder / "report.html").write_text(render_report(result, samples), encoding="utf-8")
    ctx.events.rewind(-1)
    for step, (label, own) in enumerate(result["models"].items()):
        ctx.events.metrics(step, {f"{label}/{name}": figure["value"] for name, figure in own.items()})
    ctx.events.summarize({"table": table, "legend": legend(result)})
    if found.gate is not None:
        _write_gate(ctx, folder, found.gate)


def _write_gate(ctx: Context[EvalConfig], folder: Path, gate: Verdict) -> None:
    write_json(folder / "gate.json", gate.to_json())
    (folder / "junit.xml").write_text(junit_xml(gate), encoding="utf-8")
    text = summary_markdown(gate)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    if said := append_step_summary(text, os.environ):
        ctx.events.note(said)
    ctx.events.summarize({"gate": gate.fact()})


def provenance(models: Sequence[Artifact], reward: Artifact | None) -> Json:
    """The entries ``artifacts`` and ``reward`` of metrics.json."""
    return {
        "artifacts": {artifact.label: described_artifact(artifact, models) for artifact in models},
        "reward": None if reward is None else {"ref": reward.ref, "digest": reward.digest, "facts": dict(reward.facts)},
    }


def sample_rows(found: Findings, repeats: int) -> Iterator[Row]:
    """One record a row: prompt, reference, and what each model answered."""
    held_out = found.held_out
    scores = {
        label: {name: _by_row(own[name]) for name in BY_ROW if name in own} for label, own in found.figures.items()
    }
    for index, (row, reference) in enumerate(zip(held_out.rows, held_out.references, strict=True)):
        record = {
            "id": row["id"],
            "prompt": [] if held_out.is_text else prompt_of(row),
            "reference": reference,
            "models": {label: answers(outcome, index, repeats) for label, outcome in found.outcomes.items()},
        }
        for label, own in record["models"].items():
            if "greedy" in own:
                own["greedy"]["metrics"] = {
                    name: values[row["id"]] for name, values in scores[label].items() if row["id"] in values
                }
        yield record


def _by_row(figure: Figure) -> dict[str, float]:
    """The value of each row of a figure that is a mean over rows."""
    sums = figure.examples.statistics
    return dict(zip(figure.ids, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))


def answers(outcome: Outcome, index: int, repeats: int) -> dict[str, Any]:
    """What one model did on one row; only what was measured is there."""
    found: dict[str, Any] = {}
    if outcome.nll:
        found |= {"reference_nll": outcome.nll[index], "reference_tokens": outcome.tokens[index]}
    if index < len(outcome.greedy):
        found["greedy"] = answer(outcome.greedy, outcome.greedy_scores, index)
    if index * repeats < len(outcome.sampled):
        places = range(index * repeats, (index + 1) * repeats)
        found["sampled"] = [answer(outcome.sampled, outcome.sampled_scores, place) for place in places]
    return found


def answer(answers: Sequence[Answer], scores: Sequence[float], place: int) -> dict[str, Any]:
    one = answers[place]
    record: dict[str, Any] = {"text": one.text, "finish_reason": one.finish_reason, "tokens": len(one.ids)}
    return record | ({"score": scores[place]} if scores else {})
