"""A request to stop early: what a worker's signal handlers set, and a stage looks at between its steps."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, what schedulers and containers send, and what Slurm is usually asked to send some minutes before its limit."""


class Stop:
    """Empty until somebody asks; then `asked` is the name of the signal. Asking again changes nothing."""

    def __init__(self) -> None:
        self.asked = ""

    def ask(self, by: str) -> None:
        self.asked = self.asked or by

    def listen(self) -> None:
        """Let the `SIGNALS` to this process ask, instead of ending it."""
        for number in SIGNALS:
            signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.ask(signal.Signals(number).name)
