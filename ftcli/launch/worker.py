"""The worker: read one job file, run its stage, leave a result. Started by `ftcli.launch.process` as a child process.

    python -m ftcli.launch.worker JOB.json [EVENTS_FD]

Where several share the job, RANK tells which of them this is; only rank 0 has somebody to tell its events to.

Standard input is a pipe that the controller holds open: when the controller dies, it closes, and the worker ends at once, so
that no orphan goes on writing into a work folder that somebody else may take over.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ftcli.core.errors import DISK_ERRORS, DiskError, FtcliError, OutOfMemory, StageFailed
from ftcli.core.events import Events, Sink
from ftcli.core.memory import is_out_of_memory
from ftcli.core.stage import Context
from ftcli.core.stop import Stop
from ftcli.launch.spec import Job, Result

DISK_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded", "Read-only file system")
LESS_MEMORY = (
    "lower micro_batch_size, or the lengths (max_length; for ppo max_prompt_length and response_length), set "
    "gradient_checkpointing, or use qlora"
)


def run_job(job: Job, sink: Sink, stop: Stop | None = None, rank: int = 0) -> Result:
    """Run the stage of ``job``; every way it can end becomes a `Result`. ``stop`` asks it to save and end early."""
    started = time.monotonic()
    job = job.of_rank(rank)
    events = Events(job.scratch, sink)
    try:
        stage = job.stage()
        config = stage.config.model_validate(dict(job.config))
        shared = stop or Stop(), rank, job.processes
        stage.run(Context(config, job.inputs, job.out, job.scratch, events, *shared, job.desk))
        result = Result(0, facts={**events.summary, **_resources(started), "perf/processes": job.processes})
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not isinstance(error, FtcliError):
            with suppress(OSError):  # the disk that the log is on may be full
                traceback.print_exc()
        failure = classify(error)
        result = Result(failure.exit_code, failure.message, failure.hint, events.summary)
    try:
        result.write(job.scratch)
    except OSError as error:
        failure = classify(error)
        result = Result(failure.exit_code, failure.message, failure.hint)
    return result


def classify(error: BaseException) -> FtcliError:
    """What kind of failure ``error`` is. Libraries report a full disk or memory in many ways, some only in words."""
    if isinstance(error, FtcliError):
        return error
    text = f"{type(error).__name__}: {error}"
    if (isinstance(error, OSError) and error.errno in DISK_ERRORS) or any(word in text for word in DISK_WORDS):
        return DiskError(f"writing failed: {error}", "free some space (or name another disk with --run) and run again")
    if is_out_of_memory(error):
        return OutOfMemory(
            f"not enough memory: {error}",
            LESS_MEMORY,
        )
    return StageFailed(text)


def _resources(started: float) -> dict[str, Any]:
    """Seconds in this process and peak memory. ``ru_maxrss`` is in KiB on Linux and in bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    facts: dict[str, Any] = {"perf/worker_seconds": time.monotonic() - started, "perf/peak_memory_bytes": peak}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["perf/peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        facts["device"] = torch.cuda.get_device_name()
    return facts


def _end_with_controller() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def work(path: Path, events_fd: int | None) -> NoReturn:
    """Do the job at ``path`` and end this process, whose stdin is the controller's pipe."""
    job = Job.read(path)
    rank = int(os.environ["RANK"]) if job.processes > 1 else 0
    stop = Stop()
    if job.stage().stoppable:
        stop.listen()
    pipe = open(os.devnull if events_fd is None else events_fd, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    threading.Thread(target=_end_with_controller, daemon=True).start()
    result = run_job(job, lambda event: print(json.dumps(event), file=pipe), stop, rank)
    pipe.close()
    # Libraries leave threads behind that crash while the interpreter shuts down; the result is on disk, so leave now.
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(result.exit_code)


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
