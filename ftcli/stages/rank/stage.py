"""Let people order the answers of one or more models: preference pairs and rankings to train on, and which model is preferred.

The questions go to the run's desk, which `ftcli serve` opens; models are never named there. As long as judgements are missing the
stage ends with code 3 and says how many; run the same command again and it goes on. A file of votes (--votes) can stand in for
people, or add to what they said. Prompts keep their split, so that nothing held out becomes training data. With one answer of
each of two models this is an A/B test; with three or more models they are also put on one scale.
"""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.rank.config import RankConfig


def run(ctx: Context[RankConfig]) -> None:
    from ftcli.stages.rank.collect import collect

    collect(ctx)


RANK = Stage(
    name="rank",
    config=RankConfig,
    inputs={
        "samples": Input(Kind.SAMPLES, "answers to order, from sample; several are joined by prompt", many=True),
        "votes": Input(Kind.SOURCE, "JSONL file of judgements that were made elsewhere", required=False),
    },
    outputs={"pairs": Kind.DATA, "rankings": Kind.DATA, "report": Kind.REPORT},
    run=run,
    module="ftcli.stages.rank.collect",
    example="ftcli rank --run runs/x --samples sample.samples --answers-per-prompt 2 --splits test",
)
