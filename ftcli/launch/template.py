"""The template process: it imports the libraries once, and every job it is sent runs in a fork of it.

    python -m ftcli.launch.template SOCKET_FD MODULE...

It answers on its socket with lines: ``ready``, then for each job the pid of its fork and, when that has ended, its exit code.
It ends when the controller closes the socket or dies. A process that has spoken to a GPU driver cannot be forked, so where
torch sees a GPU it ends before it is ready.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from ftcli.core.stop import SIGNALS
from ftcli.launch.worker import work

MESSAGE_BYTES = 2**16


def main() -> None:
    for number in SIGNALS:  # some reach every process of a terminal or a job; the controller decides
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return
    gc.freeze()  # or the first collection in a fork would write to, and so copy, every page
    control.sendall(b"ready\n")
    while True:
        message, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            _become_worker(Path(os.fsdecode(message)), *fds)
        for fd in fds:
            os.close(fd)
        control.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        control.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become_worker(job: Path, controller: int, events: int, log: int) -> NoReturn:
    """Go on as `ftcli.launch.process` would have started a worker: stdin is the controller's pipe, output goes to the log."""
    for fd, standard in ((controller, 0), (log, 1), (log, 2)):
        os.dup2(fd, standard)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    work(job, events)


if __name__ == "__main__":
    main()
