"""Stages without heavy imports, so that the controller can be tested in milliseconds: ``make`` writes rows step by step and
can go on from scratch, ``long`` does the same and stops when asked to, ``join`` reads them, ``rate`` takes
functions or rows, ``judge`` reports the verdict of a gate, ``ask`` waits for people."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ftcli.core.config import ExecOnly, StageConfig
from ftcli.core.errors import BadData, NeedsHuman, Stopped, UsageError
from ftcli.core.rundir import serve_command
from ftcli.core.stage import Artifact, Context, Input, Kind, Stage
from ftcli.data.rows import write_jsonl
from ftcli.metrics.rules import Rule
from ftcli.pipeline.runner import Task

ROOT = Path(__file__).parents[2]
TOY_STAGES = {
    "make": ("tests.pipeline.toy:MAKE", "Write some rows."),
    "long": ("tests.pipeline.toy:LONG", "Write some rows, and stop when asked to."),
    "join": ("tests.pipeline.toy:JOIN", "Read some rows."),
    "rate": ("tests.pipeline.toy:RATE", "Rate some rows."),
    "judge": ("tests.pipeline.toy:JUDGE", "Judge a gate."),
    "ask": ("tests.pipeline.toy:ASK", "Ask people."),
}


class MakeConfig(StageConfig):
    text: str = "hello"
    """What every row says."""
    steps: int = Field(default=3, ge=1)
    """Rows to write."""
    words: tuple[str, ...] = ()
    """Written after the text."""
    scale: float | None = Field(default=None, gt=0)
    """Multiplies the metric."""
    loud: bool = False
    """Write in capitals."""
    mode: Literal["plain", "fancy"] = "plain"
    """How to write."""
    size_bytes: int = 0
    """Bytes of an extra file."""
    fail: Literal["no", "error", "bad-data", "kill", "exit"] = "no"
    """How to fail at the second step, once."""
    step_seconds: Annotated[float, ExecOnly()] = 0.0
    """Pause of each step."""
    batch: Annotated[int, ExecOnly()] = 8
    """Rows held in memory at once."""
    room: int = 8
    """Rows for which there is memory."""


def make(ctx: Context[MakeConfig]) -> None:
    config, mark = ctx.config, ctx.scratch / "done"
    (ctx.scratch / "pid").write_text(str(os.getpid()))
    done = int(mark.read_text() or 0) if mark.exists() else 0
    ctx.events.rewind(done)
    for step in range(done + 1, config.steps + 1):
        if step == 2:
            fail_once(ctx, config.fail)
        time.sleep(config.step_seconds)
        ctx.events.summarize({"batch": config.batch})
        if config.batch > config.room:
            raise MemoryError(f"{config.batch} rows")
        if ctx.stop.asked:
            raise Stopped(f"stopped by {ctx.stop.asked} after step {step - 1}", "the same command goes on from there")
        ctx.events.metrics(step, {"toy/value": step * (config.scale or 1.0)})
        ctx.events.progress("make", step, config.steps, loss=1 / step)
        mark.write_text(str(step))
    print("made", config.steps, "rows")
    text = " ".join([config.text, *config.words])
    rows = [
        {"id": str(step), "text": text.upper() if config.loud else text, "meta": {}} for step in range(config.steps)
    ]
    folder = ctx.output("data")
    for split in ("train", "validation", "test"):
        write_jsonl(folder / f"{split}.jsonl", rows if split == "train" else [])
    if config.size_bytes:
        (folder / "large.bin").write_bytes(b"x" * config.size_bytes)
    (folder / "private").write_text("like safetensors")
    (folder / "private").chmod(0o600)
    ctx.events.summarize({"toy/first_step": done + 1})


def fail_once(ctx: Context[MakeConfig], how: str) -> None:
    mark = ctx.scratch / "failed"
    if how == "no" or mark.exists():
        return
    mark.touch()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        sys.exit(5)
    raise BadData("row 2 is bad", "repair row 2") if how == "bad-data" else RuntimeError("out of luck")


def join(ctx: Context[StageConfig]) -> None:
    texts = [(item.label, (item.path / "train.jsonl").read_text()) for item in (ctx.one("data"), *ctx.many("others"))]
    folder = ctx.output("report")
    (folder / "summary.txt").write_text(f"{len(texts)} inputs: {', '.join(label for label, _ in texts)}\n")
    (folder / "report.html").write_text("".join(text for _, text in texts))


MAKE = Stage("make", MakeConfig, {}, {"data": Kind.DATA}, make, example="ftcli make --text hello")


def halved(config: MakeConfig, facts: Mapping[str, Any]) -> tuple[MakeConfig, str] | None:
    half = facts["batch"] // 2
    return (config.model_copy(update={"batch": half}), f"with batch {half}") if half else None


LONG = replace(MAKE, name="long", stoppable=True, leaner=halved)
JOIN = Stage(
    "join",
    StageConfig,
    {
        "data": Input(Kind.DATA, "Rows to read."),
        "others": Input(Kind.DATA, "More rows.", required=False, many=True),
    },
    {"report": Kind.REPORT},
    join,
)


def rate(ctx: Context[StageConfig]) -> None:
    read = [f"{item.label} {item.path.name}:{item.ref.rpartition(':')[2]}" for item in ctx.many("rate_func")]
    rows = ctx.maybe("data")
    (ctx.output("data") / "train.jsonl").write_text("\n".join([*read, *([rows.label] if rows else [])]))


RATE = Stage(
    "rate",
    StageConfig,
    {
        "data": Input(Kind.DATA, "Rows that were rated.", unless="rate_func"),
        "rate_func": Input(Kind.FUNCTION, "Functions that rate.", required=False, many=True),
    },
    {"data": Kind.DATA},
    rate,
)


class JudgeConfig(StageConfig):
    verdict: int = 6
    """The gate's exit code."""
    gate: tuple[Rule, ...] = ()
    """Rules."""


def judge(ctx: Context[JudgeConfig]) -> None:
    folder = ctx.output("report")
    (folder / "summary.txt").write_text(f"verdict {ctx.config.verdict}\n")
    (folder / "report.html").write_text("<p>the verdict")
    ctx.events.summarize({"gate": {"exit_code": ctx.config.verdict, "message": "GATE: it is so", "hint": "read it"}})


def planned(effect: str) -> str:
    if effect == "none":
        raise UsageError("--power none: a size is needed", "for example --power 0.1")
    return f"{effect}: 7 rows"


JUDGE = Stage("judge", JudgeConfig, {}, {"report": Kind.REPORT}, judge, plan=planned)


class AskConfig(StageConfig):
    wanted: int = 2
    """Answers to wait for."""


def ask(ctx: Context[AskConfig]) -> None:
    """The desk is a file with an answer on each line; the try that saw the first few is told in the report."""
    assert ctx.desk is not None
    answers = ctx.desk.read_text().splitlines() if ctx.desk.exists() else []
    with (ctx.scratch / "tries").open("a") as tries:
        tries.write(f"{len(answers)}\n")
    if len(answers) < ctx.config.wanted:
        raise NeedsHuman(f"ask: {len(answers)} of {ctx.config.wanted} answers", serve_command(ctx.desk))
    folder = ctx.output("report")
    (folder / "summary.txt").write_text((ctx.scratch / "tries").read_text())
    (folder / "report.html").write_text("<p>".join(answers))


ASK = Stage("ask", AskConfig, {}, {"report": Kind.REPORT}, ask)


def ask_task(**settings: Any) -> Task:
    return Task("ask", "tests.pipeline.toy:ASK", ASK, AskConfig(**settings), {})


def judge_task(**settings: Any) -> Task:
    return Task("judge", "tests.pipeline.toy:JUDGE", JUDGE, JudgeConfig(**settings), {})


def make_task(id: str = "make", **settings: Any) -> Task:
    return Task(id, "tests.pipeline.toy:MAKE", MAKE, MakeConfig(**settings), {})


def long_task(**settings: Any) -> Task:
    return Task("long", "tests.pipeline.toy:LONG", LONG, MakeConfig(**settings), {})


def join_task(*items: Artifact, id: str = "join", **settings: Any) -> Task:
    inputs = {"data": items[:1], "others": items[1:]}
    return Task(id, "tests.pipeline.toy:JOIN", JOIN, StageConfig(**settings), {k: v for k, v in inputs.items() if v})
