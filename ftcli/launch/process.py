"""Run a job in a child process: its output goes to scratch/log.txt, its events come back through a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ftcli.core.errors import DiskError, OutOfMemory, StageFailed, Stopped
from ftcli.core.events import Sink, facts_so_far
from ftcli.core.stop import Stop
from ftcli.launch.signals import passed_on
from ftcli.launch.spec import Job, Result
from ftcli.launch.worker import LESS_MEMORY

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}

OFFLINE = {"HF_HUB_OFFLINE": "1"}

DEFAULTS = {
    # Threads that spin long at OpenMP's barriers waste the core that another process holds up. Measured on two cores, a LoRA step:
    # alone 1.9 s by default and 2.0 s with a short spin, beside one busy process 6.4 s and 4.1 s.
    "GOMP_SPINCOUNT": "3000",
    # numpy's linear algebra is a small part of any stage, and its threads wait for each other while torch's work: an
    # eigenvalue problem of 600 rows beside another busy process took 25 s with two threads and 0.2 s with one.
    "OPENBLAS_NUM_THREADS": "1",
    # Large blocks go back to the system when freed, and their pages are faulted in anew for the next one, which took a fifth of a
    # forward pass of 1,500 tokens. Kept, they are reused.
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    # One process uses one GPU; with several in sight, transformers would wrap the model in DataParallel.
    "CUDA_VISIBLE_DEVICES": "0",
}
"""What a worker gets unless the user's environment says otherwise."""


def worker_environment(job: Job) -> dict[str, str]:
    """This environment, without telemetry, and without the hub unless a data set must come from there.

    Models are fetched by the controller before a worker starts, so a hub outage cannot stop a run half-way.
    """
    environment = {**DEFAULTS, **os.environ, **ENVIRONMENT}
    return environment if needs_hub(job) else environment | OFFLINE


def needs_hub(job: Job) -> bool:
    return any(item.ref.startswith("hf:") and item.kind == "source" for items in job.inputs.values() for item in items)


def run_in_process_of_its_own(job: Job, sink: Sink) -> Result:
    """Start a worker, pass its events to ``sink``, and return its result when it has ended.

    ``-P`` keeps the current folder off the worker's module path, where a user's ``evaluate.py`` would hide the library.
    """
    path = job.write()
    kills = memory_kills()
    read_fd, write_fd = os.pipe()
    with (job.scratch / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ftcli.launch.worker", str(path), str(write_fd)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[write_fd],
            env=worker_environment(job),
        )
    os.close(write_fd)
    try:
        with passed_on(process.pid, stoppable=job.stage().stoppable) as stop:
            listen(read_fd, sink)
            code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return result_of(job, code, stop, kills)


def listen(read_fd: int, sink: Sink) -> None:
    """Pass a worker's events on until it ends; closes ``read_fd``."""
    with os.fdopen(read_fd, encoding="utf-8") as events:
        for line in events:
            if line.endswith("\n"):  # a worker that was killed leaves half a line
                sink(json.loads(line))


def result_of(job: Job, code: int, stop: Stop, kills: int) -> Result:
    """What the worker of ``job`` left; if nothing, what its exit code (negative: a signal) tells, together with whether it was
    asked to stop and how often the kernel had killed for memory (`memory_kills`) before it started."""
    left = Result.read(job.scratch)
    if left:
        return left
    if stop.asked and code == -signal.SIGTERM:  # before it could listen
        return Result(Stopped.exit_code, f"stopped by {stop.asked} before the first step", "the same command goes on")
    if code == -signal.SIGKILL and memory_kills() > kills:
        text = "the kernel killed the worker when memory ran out"
        return Result(OutOfMemory.exit_code, text, LESS_MEMORY, facts_so_far(job.scratch))
    return _died(code, job.scratch)


def memory_kills(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of this control group the kernel has killed for want of memory; 0 where it does not tell."""
    folders = [groups, groups / "memory"]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, own = line.split(":", 2)
            folders += [
                folder / own.lstrip("/") for folder in (groups, groups / "memory") if controllers in ("", "memory")
            ]
    found = [0]
    for path in [folder / name for folder in folders for name in ("memory.events", "memory.oom_control")]:
        with suppress(OSError):
            values = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
            found.append(int(values.get("oom_kill", 0)))
    return max(found)


def _died(code: int, scratch: Path) -> Result:
    if code < 0:
        name = signal.Signals(-code).name
        return Result(
            StageFailed.exit_code,
            f"the worker was killed by {name}",
            "SIGKILL usually means that memory ran out; run the same command again to go on from the last checkpoint",
        )
    if code == DiskError.exit_code:
        return Result(
            code, f"{scratch}: the worker could not write, not even its result", "free some space and run again"
        )
    return Result(StageFailed.exit_code, f"the worker ended with code {code} and no result; see {scratch / 'log.txt'}")
