"""Train a model on preference pairs with DPO: the better answer of a pair becomes likelier than the worse one, measured against
the model as it was.

The model to start from is also the reference that it is held to. Adapters are trained by default, and trained further when
given. A run that was interrupted goes on from its last checkpoint; SIGINT, SIGTERM and SIGUSR1 make it save one and end with
code 75."""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.dpo.config import DpoConfig, leaner


def run(ctx: Context[DpoConfig]) -> None:
    from ftcli.stages.dpo.train import train

    train(ctx)


DPO = Stage(
    name="dpo",
    config=DpoConfig,
    inputs={
        "model": Input(Kind.MODEL, "the model to start from and to be held to; an adapter is trained further"),
        "data": Input(Kind.DATA, "preference or ranking rows, from sample or prep"),
    },
    outputs={"model": Kind.MODEL},
    run=run,
    module="ftcli.stages.dpo.train",
    stoppable=True,
    leaner=leaner,
    example="ftcli dpo --run runs/first --model lora.model --data sample.pairs --learning-rate 5e-5",
)
