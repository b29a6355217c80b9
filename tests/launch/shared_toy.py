"""A stage whose work several processes share, without heavy imports unless ``gloo`` is set: in each step every rank waits for
all others, for ever, as in a collective."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ftcli.core.config import ExecOnly, StageConfig
from ftcli.core.errors import Stopped, UsageError
from ftcli.core.stage import Context, Kind, Stage
from ftcli.launch.spec import Job

TARGET = "tests.launch.shared_toy:SHARE"
SHARED_STAGES = {"share": (TARGET, "Write what every rank says.")}


class ShareConfig(StageConfig):
    steps: int = 3
    """Times that the ranks meet."""
    step_seconds: Annotated[float, ExecOnly()] = 0.0
    """Pause of each step."""
    fail: Literal["no", "usage", "error", "kill", "exit"] = "no"
    """How the failing rank fails, at the second step."""
    failing_rank: int = 1
    """Which rank fails."""
    batch: Annotated[int, ExecOnly()] = 8
    """Rows held in memory at once."""
    room: int = 8
    """Rows for which rank 1 has memory."""
    gloo: bool = False
    """Exchange through torch.distributed instead of files."""


def folder_of(ctx: Context[ShareConfig], rank: int) -> Path:
    return ctx.shared_scratch / f"rank-{rank}" if rank else ctx.shared_scratch


def meet(ctx: Context[ShareConfig], step: int, word: str) -> list[str]:
    """What each rank says in this step, in their order; waits for all of them."""
    if ctx.world_size == 1:
        return [word]
    name = f"said-{os.environ['MASTER_PORT']}-{step}"  # an earlier try had another port
    (ctx.scratch / f"{name}.part").write_text(word)
    os.rename(ctx.scratch / f"{name}.part", ctx.scratch / name)
    others = [folder_of(ctx, rank) / name for rank in range(ctx.world_size)]
    while not all(path.exists() for path in others):
        time.sleep(0.005)
    return [path.read_text() for path in others]


def share(ctx: Context[ShareConfig]) -> None:
    (ctx.scratch / "pid").write_text(str(os.getpid()))
    print("rank", ctx.rank, "of", ctx.world_size)
    ctx.events.summarize({"batch": ctx.config.batch, "toy/rank": ctx.rank})
    if ctx.rank == 1 and ctx.config.batch > ctx.config.room:
        raise MemoryError(f"{ctx.config.batch} rows")
    if ctx.config.gloo:
        import torch

        from ftcli.rl.ranks import ranks_from_environment

        with ranks_from_environment(torch.device("cpu")) as ranks:
            said = work(ctx, lambda step, word: ranks.gather(word))
    else:
        said = work(ctx, lambda step, word: meet(ctx, step, word))
    folder = ctx.output("data")
    (folder / "said.txt").write_text(" ".join(said))
    ctx.events.note(f"rank {ctx.rank} has written")


def work(ctx: Context[ShareConfig], gather: Any) -> list[str]:
    """What was said in the last step, for example ``["0/2", "1/2"]``."""
    config, mark = ctx.config, ctx.shared_scratch / "done"
    done = int(mark.read_text()) if mark.exists() else 0
    said: list[str] = []
    for step in range(done + 1, config.steps + 1):
        time.sleep(config.step_seconds)
        if step == 2 and ctx.rank == config.failing_rank:
            fail(config.fail)
        said = gather(step, "stop" if ctx.stop.asked else f"{ctx.rank}/{ctx.world_size}")
        if "stop" in said:
            if ctx.rank == 0:
                time.sleep(0.2)  # saving takes a while
                mark.write_text(str(step - 1))
            raise Stopped(f"stopped after step {step - 1}", "the same command goes on from there")
        ctx.events.metrics(step, {"toy/first_step": done + 1})
    return said


def fail(how: str) -> None:
    if how == "usage":
        raise UsageError("this setting is wrong", "set another")
    if how == "error":
        raise RuntimeError("out of luck")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(9)


def halved(config: ShareConfig, facts: Mapping[str, Any]) -> tuple[ShareConfig, str] | None:
    half = facts["batch"] // 2
    return (config.model_copy(update={"batch": half}), f"with batch {half}") if half else None


SHARE = Stage("share", ShareConfig, {}, {"data": Kind.DATA}, share, stoppable=True, leaner=halved, parallel=True)
UNSTOPPABLE = replace(SHARE, stoppable=False)


def job(folder: Path, processes: int = 2, target: str = TARGET, **settings: Any) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Job(target, settings, {}, folder / "out", folder / "scratch", processes)
