"""Run several jobs, each in a process of its own, without importing torch and its companions for each of them anew.

Those imports are most of a short stage's start: about 8 s of one core on a laptop-like CPU. The first job starts at once as
a plain worker while a template process (`ftcli.launch.template`) imports beside it; later jobs are forks of the template.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from ftcli.core.errors import StageFailed
from ftcli.core.events import Sink
from ftcli.launch.ending import memory_kills, result_of
from ftcli.launch.environment import OFFLINE, needs_hub, worker_environment
from ftcli.launch.process import listen, run_in_workers
from ftcli.launch.signals import passed_on
from ftcli.launch.spec import Job, Result


class WarmWorkers:
    """A launcher for the jobs of one recipe, to be used in a ``with`` statement. ``modules`` are imported once.

    A job is given plain workers where a fork would not do the same: when several share it, each with its own environment;
    when it needs the hub, which libraries rule out while they are imported; and when the template did not become ready,
    because torch sees a GPU or an import failed.
    """

    def __init__(self, modules: Collection[str]) -> None:
        self._modules = modules
        self._template: subprocess.Popen[bytes] | None = None
        self._ready: bool | None = None

    def __enter__(self) -> WarmWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._template is not None:
            self._replies.close()
            self._control.close()
            self._template.kill()  # it may still be importing; no fork of it is alive
            self._template.wait()

    def __call__(self, job: Job, sink: Sink) -> Result:
        if self._template is None and self._modules:
            self._start(job)
        elif job.processes == 1 and self._is_ready() and not needs_hub(job):
            return self._run_in_fork(job, sink)
        return run_in_workers(job, sink)

    def _start(self, job: Job) -> None:
        self._control, theirs = socket.socketpair()
        self._replies: TextIO = self._control.makefile("r")
        with theirs:
            self._template = subprocess.Popen(
                [sys.executable, "-P", "-m", "ftcli.launch.template", str(theirs.fileno()), *self._modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=worker_environment(job) | OFFLINE,
            )

    def _is_ready(self) -> bool:
        if self._ready is None and self._template is not None:
            self._ready = self._replies.readline() == "ready\n"
        return bool(self._ready)

    def _run_in_fork(self, job: Job, sink: Sink) -> Result:
        kills = memory_kills()
        theirs, ours = os.pipe()  # the worker ends when nobody holds our end any more
        try:
            events = self._send(job, theirs)
            pid = self._number()
            try:
                with passed_on(lambda number: os.kill(pid, number), stoppable=job.stage().stoppable) as stop:
                    listen(events, sink)
                    code = self._number()
            except EOFError:
                raise
            except BaseException:
                self._end(pid)
                raise
            return result_of(job, code, stop, kills)
        except (BrokenPipeError, EOFError):
            self._ready = False
            return Result.read(job.scratch) or Result(
                StageFailed.exit_code,
                "the process that workers are forked from was killed",
                "run the same command again",
            )
        finally:
            os.close(theirs)
            os.close(ours)

    def _send(self, job: Job, stdin: int) -> int:
        """Hand ``job`` to the template; where its worker's events can be read."""
        path = job.write()
        events, write_fd = os.pipe()
        try:
            with os.fdopen(write_fd, "wb") as channel, (job.scratch / "log.txt").open("ab") as log:
                socket.send_fds(self._control, [os.fsencode(path)], [stdin, channel.fileno(), log.fileno()])
        except BaseException:
            os.close(events)
            raise
        return events

    def _end(self, pid: int) -> None:
        """Kill a fork and hear of its end, so that the next number read belongs to the next job."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(EOFError):
            self._number()

    def _number(self) -> int:
        line = self._replies.readline()
        if not line:
            raise EOFError
        return int(line)
