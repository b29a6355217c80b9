"""The eval stage: any number of models on the same held-out rows, the first being what the others are compared with.

    ftcli eval --run runs/x --models base=demo:smollm2 --models lora.model --data prep.data --fail-if "perplexity.ratio > 1.05"

Writes report.html (one file, no network), report.md, metrics.json, examples.json (a baseline to keep) and samples.jsonl, and with a
gate gate.json, junit.xml and summary.md. The report is published whatever the gate says.
"""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.eval.config import EvalConfig


def _run(ctx: Context[EvalConfig]) -> None:
    from ftcli.stages.eval.evaluate import evaluate_models

    evaluate_models(ctx)


def _power(effect: str) -> str:
    from ftcli.metrics.power import power_text

    return power_text(effect)


EVAL = Stage(
    name="eval",
    config=EvalConfig,
    inputs={
        "models": Input(Kind.MODEL, "models to measure; the first is what the others are compared with", many=True),
        "data": Input(Kind.DATA, "chat rows, whose last answer is the reference, or text rows"),
        "reward": Input(Kind.REWARD, "reward model that scores the answers", required=False),
        "judge": Input(Kind.MODEL, "chat model that compares answers with the first model's", required=False),
        "metric": Input(
            Kind.FUNCTION, "function (predictions, references, ...) -> one number a row", required=False, many=True
        ),
        "tasks": Input(Kind.SOURCE, "folder with task files of lm-evaluation-harness", required=False),
        "baseline": Input(
            Kind.SOURCE, "examples.json to compare the last model with, by rules against baseline_file", required=False
        ),
    },
    outputs={"report": Kind.REPORT},
    run=_run,
    version=2,
    module="ftcli.stages.eval.evaluate",
    plan=_power,
    example="ftcli eval --run runs/x --models base=demo:smollm2 --models lora.model --data prep.data",
)
