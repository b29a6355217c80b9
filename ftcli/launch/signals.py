"""Hand a signal to stop on to the workers, so that they finish their step, save, and leave by themselves.

The controller alone is told of a stop by whoever started it; the terminal and some schedulers tell the workers too, which does
no harm. A second signal is not passed on: it ends the controller as usual, and the workers with it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from ftcli.core.stop import SIGNALS, Stop


@contextmanager
def passed_on(tell: Callable[[int], None], *, stoppable: bool) -> Iterator[Stop]:
    """Meanwhile the first of the `SIGNALS` to this process is passed on by ``tell`` as a SIGTERM; yields whether it came.

    A stage that is not ``stoppable`` has nothing to save, so signals keep their effect. Only the main thread can set handlers.
    """
    stop = Stop()
    if not stoppable or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual = {number: signal.getsignal(number) for number in SIGNALS}

    def pass_on(number: int, frame: FrameType | None) -> None:
        _restore(usual)
        stop.ask(signal.Signals(number).name)
        # Not by print: the signal may have come in the middle of another one, whose lock is held.
        os.write(2, f"\n{stop.asked}: finishing the step and saving; once more ends it at once\n".encode())
        with suppress(ProcessLookupError):
            tell(signal.SIGTERM)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    try:
        yield stop
    finally:
        _restore(usual)


def _restore(usual: Mapping[signal.Signals, Any]) -> None:
    for number, handler in usual.items():
        signal.signal(number, handler)
