"""Run a job in child processes: their output goes to log files in scratch, the events of the first come back through a pipe.

Most jobs have one worker. The workers of a stage that is ``parallel`` are ranks of one group and wait for each other: when
one fails the others are ended. torchrun would start them too, but it hides exit codes and closes the pipe for events.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ftcli.core.errors import Stopped
from ftcli.core.events import Sink
from ftcli.launch.ending import memory_kills, result_of_all
from ftcli.launch.environment import rank_environments
from ftcli.launch.signals import passed_on
from ftcli.launch.spec import Job, Result

GRACE_S = 2.0
"""After one rank has failed, how long the others have to end by themselves."""

Worker = subprocess.Popen[bytes]


def run_in_workers(job: Job, sink: Sink) -> Result:
    """Start the workers of ``job``, pass the events of the first to ``sink``, and return the result when all have ended."""
    environments = rank_environments(job)
    path = job.write()
    kills = memory_kills()
    workers: list[Worker] = []
    codes: dict[int, int] = {}
    read_fd, write_fd = os.pipe()
    try:
        try:
            for rank, environment in enumerate(environments):
                workers.append(_start(job.of_rank(rank), path, environment, [write_fd] if rank == 0 else []))
        finally:
            os.close(write_fd)
        with passed_on(lambda number: _tell(workers, number), stoppable=job.stage().stoppable) as stop:
            watch = threading.Thread(target=_wait_for_all, args=(workers, codes), daemon=True)
            watch.start()
            listen(read_fd, sink)
            watch.join()
    except BaseException:
        _kill(workers)
        raise
    return result_of_all(job, codes, stop, kills)


def _start(job: Job, path: Path, environment: Mapping[str, str], events: Sequence[int]) -> Worker:
    """``-P`` keeps the current folder off the worker's module path, where a user's ``evaluate.py`` would hide the library."""
    with (job.scratch / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ftcli.launch.worker", str(path), *map(str, events)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=events,
            env=environment,
        )


def listen(read_fd: int, sink: Sink) -> None:
    """Pass a worker's events on until it ends; closes ``read_fd``."""
    with os.fdopen(read_fd, encoding="utf-8") as events:
        for line in events:
            if line.endswith("\n"):  # a worker that was killed leaves half a line
                sink(json.loads(line))


def _wait_for_all(workers: Sequence[Worker], codes: dict[int, int]) -> None:
    """Wait until no worker runs, and fill in the exit codes by rank, except of those that had to be ended here.

    Once one has failed the others get `GRACE_S`. One that was stopped has not failed: the first may be saving for both.
    """
    deadline = float("inf")
    while True:
        codes |= {rank: code for rank, worker in enumerate(workers) if (code := worker.poll()) is not None}
        running = [worker for rank, worker in enumerate(workers) if rank not in codes]
        if any(code not in (0, Stopped.exit_code) for code in codes.values()):
            deadline = min(deadline, time.monotonic() + GRACE_S)
        if not running:
            return
        if time.monotonic() > deadline:
            _kill(running)
            return
        with suppress(subprocess.TimeoutExpired):
            running[0].wait(timeout=0.1)


def _kill(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()


def _tell(workers: Sequence[Worker], number: int) -> None:
    for worker in workers:
        worker.send_signal(number)
