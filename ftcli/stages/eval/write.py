"""Write the report folder: metrics.json, samples.jsonl, report.md, summary.txt and report.html."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftcli.core.artifacts import write_json
from ftcli.core.stage import Context
from ftcli.data.rows import Row, prompt_of, reference_of, write_jsonl
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.outcome import Answer, Outcome
from ftcli.stages.eval.report import render_report
from ftcli.stages.eval.summary import summary_text
from ftcli.stages.eval.tables import legend, markdown, short_table


def write_report(
    ctx: Context[EvalConfig], result: Mapping[str, Any], rows: Sequence[Row], outcomes: Mapping[str, Outcome]
) -> None:
    """Fill the output ``report``, log each model's figures to metrics.jsonl and leave the short table in the facts."""
    folder = ctx.output("report")
    repeats = ctx.config.samples_per_prompt
    samples = list(sample_rows(rows, outcomes, repeats))
    write_json(folder / "metrics.json", result)
    write_jsonl(folder / "samples.jsonl", samples)
    table = short_table(result)
    (folder / "report.md").write_text(markdown(table, legend(result)), encoding="utf-8")
    (folder / "summary.txt").write_text(summary_text(table, legend(result), samples), encoding="utf-8")
    (folder / "report.html").write_text(render_report(result, samples), encoding="utf-8")
    ctx.events.rewind(-1)
    for step, (label, figures) in enumerate(result["models"].items()):
        ctx.events.metrics(step, {f"{label}/{name}": figure["value"] for name, figure in figures.items()})
    ctx.events.summarize({"table": table, "legend": legend(result)})


def sample_rows(rows: Sequence[Row], outcomes: Mapping[str, Outcome], repeats: int) -> Iterator[Row]:
    """One record a row: prompt, reference, and what each model answered."""
    for index, row in enumerate(rows):
        yield {
            "id": row["id"],
            "prompt": prompt_of(row),
            "reference": reference_of(row),
            "models": {label: answers(outcome, index, repeats) for label, outcome in outcomes.items()},
        }


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
