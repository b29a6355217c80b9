"""Our end of `ftcli.core.function_worker`: start the process, ask it, and end it with all that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

LOOK_S = 1.0
"""How often to look whether the process is still there: what it started may hold its end of the pipe open."""


class Ended(Exception):
    """The process ended by itself; the message says how."""


class FunctionProcess:
    """A process for one function of the user's, in a process group of its own. It ends with this object or with this process.

    What it prints goes to this process's standard error, in a stage's worker the log.
    """

    def __init__(self, path: Path, name: str) -> None:
        theirs, self._requests = Pipe(duplex=False)
        self._replies, answers = Pipe(duplex=False)
        with theirs, answers:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-u",
                    "-P",
                    "-m",
                    "ftcli.core.function_worker",
                    str(answers.fileno()),
                    str(path),
                    name,
                ],
                stdin=theirs.fileno(),
                stdout=2,
                pass_fds=[answers.fileno()],
                start_new_session=True,
                env={"PYTHONHASHSEED": "0", **os.environ},  # or the order of a set would differ from run to run
            )
        self.close = weakref.finalize(self, _end, self._process, self._requests, self._replies)

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The reply to ``request``; raises as `reply` does."""
        if not self.close.alive:
            raise ValueError("this process has ended")
        message = json.dumps(request).encode()
        with suppress(BrokenPipeError):  # it is dead, which `reply` says
            self._requests.send_bytes(message)
        return self.reply(limit_s)

    def reply(self, limit_s: float) -> dict[str, Any]:
        """The next reply. Raises `TimeoutError` after ``limit_s`` seconds and `Ended`; the process is gone then."""
        deadline = time.monotonic() + limit_s
        try:
            while not self._replies.poll(min(LOOK_S, max(0.0, deadline - time.monotonic()))):
                if self._process.poll() is not None:
                    raise EOFError
                if time.monotonic() >= deadline:
                    raise TimeoutError
            reply: dict[str, Any] = json.loads(self._replies.recv_bytes())
        except (EOFError, OSError) as error:  # TimeoutError is an OSError
            self.close()
            raise error if isinstance(error, TimeoutError) else Ended(_how(self._process.returncode)) from None
        return reply


def _end(process: subprocess.Popen[bytes], *channels: Connection) -> None:
    """Kill the process group, so that nothing the function started goes on."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for channel in channels:
        channel.close()


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def remedy(path: Path, missing: str | None) -> str:
    """What to do about a module ``missing`` that the file at ``path`` imports and that is not there; empty for None."""
    if not missing:
        return ""
    top = missing.partition(".")[0]
    if path.with_name(top).is_dir() or path.with_name(f"{top}.py").is_file():
        return (
            f"{path.name} must stand alone, or a change of {missing} would go unseen: put the code into it, or install "
            f"{missing} as a package"
        )
    return f"install {top} where ftcli is installed"
