"""The errors that a user can cause, each with the exit code that scripts may rely on (docs/exit-codes.md)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FtcliError(Exception):
    """A mistake or condition that the user can act on; printed as one message, never as a traceback.

    ``message`` says what is wrong and where; ``hint`` is the command or edit to try next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class StageFailed(FtcliError):
    """A stage stopped with an error of its own; its log keeps the traceback."""

    exit_code = 1


class UsageError(FtcliError):
    """A wrong flag, recipe, config value or input."""

    exit_code = 2


class NeedsHuman(FtcliError):
    """People have to judge first; the stage keeps its work, and the same command goes on once they have."""

    exit_code = 3


class Busy(FtcliError):
    """Another process is working on the same stage of the same run directory."""

    exit_code = 5


class GateFailed(FtcliError):
    """A measured value breaks a limit that the user set."""

    exit_code = 6


class GateNotEvaluable(FtcliError):
    """A gate could not be judged: a figure is missing or not finite, or too little was measured."""

    exit_code = 7


class BadData(FtcliError):
    """Input rows that cannot be used: empty, malformed, or of the wrong type for the stage."""

    exit_code = 65


class OutOfMemory(FtcliError):
    """The machine ran out of memory while a stage worked."""

    exit_code = 71


class Diverged(FtcliError):
    """Training produced values that are not finite."""

    exit_code = 72


class DiskError(FtcliError):
    """The disk is full, read-only or failing."""

    exit_code = 74


class Stopped(FtcliError):
    """A signal asked the stage to stop; it saved what it had, and the same command goes on from there."""

    exit_code = 75


class Corrupt(FtcliError):
    """An artifact is not what its record says."""

    exit_code = 76


BY_EXIT_CODE: dict[int, type[FtcliError]] = {
    cls.exit_code: cls
    for cls in (
        StageFailed,
        UsageError,
        NeedsHuman,
        Busy,
        GateFailed,
        GateNotEvaluable,
        BadData,
        OutOfMemory,
        Diverged,
        DiskError,
        Stopped,
        Corrupt,
    )
}
"""Lets the controller raise again what a worker reported by its exit code."""

INTERRUPTED = 130

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn "no space left" and its kin into one error with the exit code for disks."""
    try:
        yield
    except PermissionError as error:
        raise DiskError(f"{root}: {error}", "name a run directory that you can write with --run") from None
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise DiskError(f"{root}: {error}", "free some space, or name another disk with --run") from None
