"""The reward stage.

ftcli reward --model policy.model --data sample.pairs
"""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.reward.config import RewardConfig


def run(ctx: Context[RewardConfig]) -> None:
    from ftcli.stages.reward.train import train

    train(ctx)


REWARD = Stage(
    name="reward",
    config=RewardConfig,
    inputs={
        "model": Input(Kind.MODEL, "the policy that the rewards are for; its base carries the reward model"),
        "data": Input(Kind.DATA, "preference rows (prompt, chosen, rejected), from sample"),
    },
    outputs={"reward": Kind.REWARD},
    run=run,
    module="ftcli.stages.reward.train",
    version=2,
    example="ftcli reward --run runs/first --model lora.model --data sample.pairs --learning-rate 3e-4",
)
