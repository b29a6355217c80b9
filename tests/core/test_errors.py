from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ftcli.core import errors
from ftcli.core.errors import BY_EXIT_CODE, DiskError, FtcliError, disk_errors


def test_exit_codes_are_those_that_are_documented() -> None:
    documented = {
        "StageFailed": 1,
        "UsageError": 2,
        "NeedsHuman": 3,
        "Busy": 5,
        "GateFailed": 6,
        "GateNotEvaluable": 7,
        "BadData": 65,
        "OutOfMemory": 71,
        "Diverged": 72,
        "DiskError": 74,
        "Stopped": 75,
        "Corrupt": 76,
    }
    assert {cls.__name__: code for code, cls in BY_EXIT_CODE.items()} == documented
    assert errors.INTERRUPTED == 130
    for cls in BY_EXIT_CODE.values():
        assert issubclass(cls, FtcliError)
        assert str(cls("what", "do")) == "what"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_what_a_disk_does_becomes_a_disk_error_that_names_the_run(number: int) -> None:
    with pytest.raises(DiskError, match="/runs/x: ") as caught, disk_errors(Path("/runs/x")):
        raise OSError(number, "it failed")
    assert caught.value.hint == "free some space, or name another disk with --run"


def test_a_missing_right_asks_for_another_run_directory() -> None:
    with pytest.raises(DiskError) as caught, disk_errors(Path("/runs/x")):
        raise PermissionError(errno.EACCES, "Permission denied", "/runs/x/y")
    assert "name a run directory that you can write" in caught.value.hint


def test_other_errors_pass() -> None:
    with pytest.raises(FileNotFoundError), disk_errors(Path("/runs/x")):
        raise FileNotFoundError(errno.ENOENT, "no such file")
