"""Run a job in this process: for tests, and for a debugger (`--in-process`)."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

from ftcli.core.events import Sink
from ftcli.launch.spec import Job, Result
from ftcli.launch.worker import run_job


def run_inline(job: Job, sink: Sink) -> Result:
    job.write()
    with redirect_stdout(sys.stderr):  # what a stage prints is no result of the command
        return run_job(job, sink)
