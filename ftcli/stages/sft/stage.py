"""Fine-tune a model on chat rows; the loss counts the assistant's turns alone, each through its end-of-turn token.

sft trains all weights. lora trains small adapters beside the frozen weights, a percent or so of their number; qlora
does the same with the frozen weights in 4 bits, for models that would not fit otherwise. lora and qlora train an
adapter further when given one. A run that was interrupted goes on from its last checkpoint; SIGINT, SIGTERM and SIGUSR1
make it save one and end with code 75."""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.sft.config import LoraConfig, QloraConfig, SftConfig, leaner


def run(ctx: Context[SftConfig]) -> None:
    from ftcli.stages.sft.train import train

    train(ctx)


_DATA = Input(Kind.DATA, "chat rows (messages), from prep", many=True)
_OUTPUTS = {"model": Kind.MODEL}
_CONTINUE = "the model to start from; an adapter is trained further"

SFT = Stage(
    name="sft",
    config=SftConfig,
    inputs={"model": Input(Kind.MODEL, "the model to start from"), "data": _DATA},
    outputs=_OUTPUTS,
    run=run,
    module="ftcli.stages.sft.train",
    version=3,
    stoppable=True,
    leaner=leaner,
    example="ftcli sft --run runs/first --model demo:smollm2 --data prep.data --learning-rate 2e-5",
)
LORA = Stage(
    name="lora",
    config=LoraConfig,
    inputs={"model": Input(Kind.MODEL, _CONTINUE), "data": _DATA},
    outputs=_OUTPUTS,
    run=run,
    module="ftcli.stages.sft.train",
    version=3,
    stoppable=True,
    leaner=leaner,
    example="ftcli lora --run runs/first --model demo:smollm2 --data prep.data --lora-r 16 --learning-rate 2e-4",
)
QLORA = Stage(
    name="qlora",
    config=QloraConfig,
    inputs={"model": Input(Kind.MODEL, _CONTINUE), "data": _DATA},
    outputs=_OUTPUTS,
    run=run,
    module="ftcli.stages.sft.train",
    version=3,
    stoppable=True,
    leaner=leaner,
    example="ftcli qlora --run runs/first --model demo:smollm2 --data prep.data --lora-r 16 --learning-rate 2e-4",
)
