"""Call the ftcli command inside the test's process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from ftcli.cli.app import main


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str


def ftcli(*arguments: str | Path) -> Called:
    """What the command printed and its exit code. Errors that are bugs are raised, as a traceback would show them."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        patch.object(sys, "argv", ["ftcli", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Called(code, out.getvalue(), err.getvalue())
