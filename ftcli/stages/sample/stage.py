"""Draws k answers to each prompt from a model, at temperature 1 over its whole vocabulary.

Every row has its own random stream, so the answers do not depend on how rows are batched. Where the data has reference
answers, it also writes preference pairs: the reference is chosen, the model's own answer is rejected. Identical ones are
dropped and counted.

With ``others``, each of them answers the same prompts as ``model`` does, with random streams of its own. samples.jsonl then
tells of each answer which model gave it: candidates that people order with the stage ``rank``. Pairs are made of ``model``'s
answers alone.
"""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.sample.config import SampleConfig


def run(ctx: Context[SampleConfig]) -> None:
    from ftcli.stages.sample.generate import run as generate

    generate(ctx)


SAMPLE = Stage(
    name="sample",
    config=SampleConfig,
    inputs={
        "model": Input(Kind.MODEL, "The model that answers."),
        "data": Input(Kind.DATA, "Rows with prompts, from prep."),
        "others": Input(
            Kind.MODEL, "More models that answer the same prompts, for people to compare.", required=False, many=True
        ),
    },
    outputs={"samples": Kind.SAMPLES, "pairs": Kind.DATA},
    run=run,
    module="ftcli.stages.sample.generate",
    example="ftcli sample --run runs/x --model lora.model --data prep.data --samples-per-prompt 3",
)
