"""Train a reward model on preference pairs and rankings: a scalar head on the policy's backbone, with an adapter or all
weights.

All pairs of a prompt are one element of a batch. What is judged is held out: validation, or test where that is empty. A
run that was interrupted goes on from its last checkpoint; SIGINT, SIGTERM and SIGUSR1 make it save one and end with
code 75."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ftcli.core.stage import Artifact, Context, Input, Kind, Stage
from ftcli.stages.reward.config import RewardConfig, leaner


def run(ctx: Context[RewardConfig]) -> None:
    from ftcli.stages.reward.train import train

    train(ctx)


def score(reward: Artifact, lines: Iterable[bytes], name: str, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    from ftcli.stages.reward.score import score_lines

    return score_lines(reward, lines, name, say)


REWARD = Stage(
    name="reward",
    config=RewardConfig,
    inputs={
        "model": Input(Kind.MODEL, "the policy that the rewards are for; its backbone carries the reward model"),
        "data": Input(Kind.DATA, "preference rows (prompt, chosen, rejected) and rankings, from prep or sample"),
    },
    outputs={"reward": Kind.REWARD, "report": Kind.REPORT},
    run=run,
    score=score,
    module="ftcli.stages.reward.train",
    version=3,
    stoppable=True,
    leaner=leaner,
    example="ftcli reward --run runs/first --model lora.model --data sample.pairs --learning-rate 3e-4",
)
