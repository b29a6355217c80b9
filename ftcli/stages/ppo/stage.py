"""The ppo stage.

ftcli ppo --model lora.model --reward reward.reward --data prep.data
"""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.ppo.config import PpoConfig


def run(ctx: Context[PpoConfig]) -> None:
    from ftcli.stages.ppo.train import train

    train(ctx)


PPO = Stage(
    name="ppo",
    config=PpoConfig,
    inputs={
        "model": Input(Kind.MODEL, "the policy to start from, also the reference of the KL"),
        "reward": Input(Kind.REWARD, "the reward model, on the same base"),
        "data": Input(Kind.DATA, "rows whose prompts are answered; train for rollouts, validation for the comparison"),
    },
    outputs={"model": Kind.MODEL},
    run=run,
    module="ftcli.stages.ppo.train",
    version=2,
    example="ftcli ppo --run runs/first --model lora.model --reward reward.reward --data prep.data --total-episodes 1024",
)
