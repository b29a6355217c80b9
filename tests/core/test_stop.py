from __future__ import annotations

import os
import signal

import pytest

from ftcli.core.stop import SIGNALS, Stop


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_to_stop_and_ends_nothing(number: signal.Signals) -> None:
    usual = {one: signal.getsignal(one) for one in SIGNALS}
    stop = Stop()
    try:
        stop.listen()
        assert stop.asked == ""
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == number.name  # the first one
    finally:
        for one, handler in usual.items():
            signal.signal(one, handler)
