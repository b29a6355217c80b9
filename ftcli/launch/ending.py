"""What a worker, or several, left: the result on disk; where there is none, what the exit code and the kernel tell."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ftcli.core.errors import DiskError, OutOfMemory, StageFailed, Stopped
from ftcli.core.events import facts_so_far
from ftcli.core.stop import Stop
from ftcli.launch.spec import RESULT, Job, Result
from ftcli.launch.worker import LESS_MEMORY


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


def result_of_all(job: Job, codes: Mapping[int, int], stop: Stop, kills: int) -> Result:
    """What the workers of ``job`` left. ``codes`` are the exit codes by rank of those that ended by themselves.

    That of rank 0 if all is well; else that of the rank that failed first, since its end is what the others complain of.
    """
    results = {rank: result_of(job.of_rank(rank), code, stop, kills) for rank, code in codes.items()}
    if job.processes == 1:
        return results[0]
    failed = [rank for rank in sorted(results) if results[rank].exit_code != 0]
    if not failed:
        return results[0]
    if all(results[rank].exit_code == Stopped.exit_code for rank in failed):
        return results[failed[0]]
    first = min(failed, key=lambda rank: _failed_at(job.of_rank(rank), codes[rank]))
    found = results[first]
    log = f"its log is {job.of_rank(first).scratch / 'log.txt'}"
    return replace(
        found,
        message=f"rank {first} of {job.processes}: {found.message}",
        hint=f"{found.hint}; {log}" if found.hint else log,
    )


def _failed_at(job: Job, code: int) -> float:
    """When the worker of ``job`` left its result. One that died without a word failed before those that could say why;
    but aborted it is where NCCL lost sight of another."""
    try:
        return (job.scratch / RESULT).stat().st_mtime_ns
    except FileNotFoundError:
        return float("inf") if code == -signal.SIGABRT else 0


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
