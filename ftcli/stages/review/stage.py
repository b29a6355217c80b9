"""Lets people accept, edit or reject rows, e.g. synthetic ones, before anything is trained on them.

The rows are put on the run's desk, which ftcli serve opens in a browser. Until enough of them are judged the stage ends
with code 3 and says how many are missing; the same command looks again. A file of votes can stand in for the desk.

The output data holds the rows that were kept, in the splits they came in; its rows tell in meta.prov.review who decided.
The output report holds rejected.jsonl, each rejected row with its reason, and how far reviewers agree. Once published the
result stands: judgements given later change nothing unless the stage is run with --force."""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.review.config import ReviewConfig


def run(ctx: Context[ReviewConfig]) -> None:
    from ftcli.stages.review.collect import collect

    collect(ctx)


REVIEW = Stage(
    name="review",
    config=ReviewConfig,
    inputs={
        "data": Input(Kind.DATA, "Rows of any type that people should see first, e.g. from synth."),
        "votes": Input(
            Kind.SOURCE,
            "A JSONL file of judgements: item (a row's id), grader, verdict accept, edit or reject, reason, edited (the row as "
            "it should be). The desk is asked for the rest.",
            required=False,
        ),
    },
    outputs={"data": Kind.DATA, "report": Kind.REPORT},
    run=run,
    module="ftcli.stages.review.collect",
    example="ftcli review --run runs/x --data synth.data --mode sample --sample-size 50 --min-accept-rate 0.8",
)
