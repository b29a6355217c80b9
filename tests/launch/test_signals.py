"""A signal to the controller, which here is this process, reaches the worker; both kinds of workers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftcli.launch.process import run_in_workers
from ftcli.launch.signals import passed_on
from ftcli.launch.spec import Job
from ftcli.launch.warm import WarmWorkers
from tests.pipeline.conftest import toy_stages as toy_stages

pytestmark = pytest.mark.usefixtures("toy_stages")
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])


def job(folder: Path, stage: str = "LONG", **settings: Any) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Job(f"tests.pipeline.toy:{stage}", settings, {}, folder / "out", folder / "scratch")


@pytest.fixture(params=["plain", "fork"])
def launch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "plain":
        yield run_in_workers
        return
    with WarmWorkers(["tests.pipeline.toy"]) as workers:
        workers(job(tmp_path / "first"), lambda event: None)
        yield workers


@SIGNALS
def test_the_first_signal_lets_the_worker_finish_its_step(
    number: signal.Signals, launch: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    usual = signal.getsignal(number)

    def send_at_the_first_step(event: dict[str, Any]) -> None:
        if event.get("done") == 1:
            os.kill(os.getpid(), number)

    result = launch(job(tmp_path, steps=1000, step_seconds=0.01), send_at_the_first_step)
    assert result.exit_code == 75
    assert result.message.startswith("stopped by SIGTERM after step ")
    assert int((tmp_path / "scratch" / "done").read_text()) < 1000
    assert f"{number.name}: finishing the step and saving; once more ends it at once" in capfd.readouterr().err
    assert signal.getsignal(number) == usual
    again = launch(job(tmp_path, steps=1000), lambda event: None)
    assert again.exit_code == 0
    assert again.facts["toy/first_step"] > 1


def test_a_second_signal_ends_it_at_once(launch: Any, tmp_path: Path) -> None:
    def send_twice(event: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        launch(job(tmp_path, steps=1000, step_seconds=0.01), send_twice)
    assert not (tmp_path / "scratch" / "result.json").exists()


def test_a_worker_told_by_the_terminal_too_stops_once(launch: Any, tmp_path: Path) -> None:
    def send_to_both(event: dict[str, Any]) -> None:
        if event.get("done") == 1:
            os.kill(int((tmp_path / "scratch" / "pid").read_text()), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    result = launch(job(tmp_path, steps=1000, step_seconds=0.01), send_to_both)
    assert (result.exit_code, "stopped by SIG" in result.message) == (75, True)


def test_a_stage_that_cannot_stop_is_interrupted(tmp_path: Path) -> None:
    def send(event: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_in_workers(job(tmp_path, "MAKE", steps=1000, step_seconds=0.01), send)


def test_in_a_thread_signals_keep_their_effect() -> None:
    usual = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with passed_on(lambda number: None, stoppable=True) as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [("", usual)]
