"""The eval stage: any number of models on the same held-out rows, the first being what the others are compared with.

    ftcli eval --run runs/x --models base=demo:smollm2 --models lora.model --data prep.data

Writes report.html (one file, no network), report.md, metrics.json and samples.jsonl.
"""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.eval.config import EvalConfig


def _run(ctx: Context[EvalConfig]) -> None:
    from ftcli.stages.eval.evaluate import evaluate_models

    evaluate_models(ctx)


EVAL = Stage(
    name="eval",
    config=EvalConfig,
    inputs={
        "models": Input(Kind.MODEL, "models to measure; the first is what the others are compared with", many=True),
        "data": Input(Kind.DATA, "chat rows; their last answer is the reference"),
        "reward": Input(Kind.REWARD, "reward model that scores the answers", required=False),
    },
    outputs={"report": Kind.REPORT},
    run=_run,
    module="ftcli.stages.eval.evaluate",
    example="ftcli eval --run runs/x --models base=demo:smollm2 --models lora.model --data prep.data",
)
