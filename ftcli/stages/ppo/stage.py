"""PPO: the policy answers prompts, its answers are scored, and it learns to give those that score higher, held near where it
started by a KL penalty.

Answers are scored by a reward model, by Python functions (FILE.py:NAME, called like those of TRL's GRPOTrainer), or by a
weighted sum. A reward model whose held-out accuracy is not clearly above what length tells is refused (exit code 6) unless
reward_gate is warn. A run that was interrupted goes on from its last rollout, bit for bit; SIGINT, SIGTERM and SIGUSR1 make it
save a checkpoint and end with code 75."""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.ppo.config import PpoConfig, leaner


def run(ctx: Context[PpoConfig]) -> None:
    from ftcli.stages.ppo.train import train

    train(ctx)


PPO = Stage(
    name="ppo",
    config=PpoConfig,
    inputs={
        "model": Input(Kind.MODEL, "the policy to start from, also the reference of the KL"),
        "reward": Input(Kind.REWARD, "the reward model", unless="reward_func"),
        "data": Input(Kind.DATA, "rows whose prompts are answered; train for rollouts, validation for the comparison"),
        "reward_func": Input(Kind.FUNCTION, "a Python function that scores answers", required=False, many=True),
        "eval_func": Input(
            Kind.FUNCTION,
            "a function that scores the held-out answers and is never optimised",
            required=False,
            many=True,
        ),
    },
    outputs={"model": Kind.MODEL, "report": Kind.REPORT},
    run=run,
    module="ftcli.stages.ppo.train",
    version=4,
    stoppable=True,
    parallel=True,
    leaner=leaner,
    example="ftcli ppo --run runs/first --model lora.model --reward reward.reward --data prep.data --total-episodes 1024",
)
