"""Run a job in this process: for tests, and for a debugger (`--in-process`)."""

from __future__ import annotations

from ftcli.core.events import Sink
from ftcli.launch.spec import Job, Result
from ftcli.launch.worker import run_job


def run_inline(job: Job, sink: Sink) -> Result:
    job.write()
    return run_job(job, sink)
