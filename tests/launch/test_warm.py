from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.stage import Artifact, Kind
from ftcli.launch import warm
from ftcli.launch.spec import Job
from ftcli.launch.warm import WarmWorkers
from tests.pipeline.conftest import toy_stages as toy_stages
from tests.pipeline.toy import ROOT

pytestmark = pytest.mark.usefixtures("toy_stages")


def job(folder: Path, inputs: dict[str, tuple[Artifact, ...]] | None = None, **settings: Any) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Job("tests.pipeline.toy:MAKE", settings, inputs or {}, folder / "out", folder / "scratch")


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[WarmWorkers]:
    """Warm workers that have done their first job."""
    with WarmWorkers(["tests.pipeline.toy"]) as started:
        assert started(job(tmp_path / "first"), lambda event: None).exit_code == 0
        yield started


def parent_of_worker(folder: Path) -> str:
    """Filled in by a job that is listened to: who started its process."""
    return (folder / "parent").read_text()


def listen_for_parent(folder: Path) -> Any:
    def listen(event: dict[str, Any]) -> None:
        if (folder / "parent").exists():  # the worker may have ended since it sent this event
            return
        pid = (folder / "scratch" / "pid").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
        (folder / "parent").write_text(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid")))

    return listen


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_first_job_is_a_plain_worker_and_later_ones_are_forks(tmp_path: Path) -> None:
    modules = ["tests.pipeline.toy"]
    parents = []
    with WarmWorkers(modules) as workers:
        for name in "abc":
            folder = tmp_path / name
            told: list[dict[str, Any]] = []
            listen = listen_for_parent(folder)
            result = workers(
                job(folder, steps=2, step_seconds=0.3),
                lambda event, told=told, listen=listen: (told.append(event), listen(event)),
            )
            assert result.exit_code == 0, result
            assert [event["event"] for event in told] == ["metrics", "progress"] * 2
            assert (folder / "scratch" / "log.txt").read_text() == "made 2 rows\n"
            parents.append(parent_of_worker(folder))
    assert parents[0] == str(os.getpid())
    assert parents[1] == parents[2] != parents[0]
    assert not alive(int(parents[1]))


def test_without_modules_every_worker_is_a_plain_one(tmp_path: Path) -> None:
    with WarmWorkers([]) as workers:
        for name in "ab":
            workers(job(tmp_path / name, step_seconds=0.3), listen_for_parent(tmp_path / name))
            assert parent_of_worker(tmp_path / name) == str(os.getpid())


@pytest.mark.parametrize(
    ("fail", "code", "words"),
    [
        ("bad-data", 65, "row 2 is bad"),
        ("error", 1, "out of luck"),
        ("kill", 1, "killed by SIGKILL"),
        ("exit", 1, "SystemExit"),
    ],
)
def test_a_fork_that_fails_says_so_and_the_next_one_works(
    tmp_path: Path, workers: WarmWorkers, fail: str, code: int, words: str
) -> None:
    result = workers(job(tmp_path / "bad", fail=fail), lambda event: None)
    assert result.exit_code == code
    assert words in result.message
    assert workers(job(tmp_path / "good"), lambda event: None).exit_code == 0


def test_a_failing_listener_ends_the_fork(tmp_path: Path, workers: WarmWorkers) -> None:
    def listen(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers(job(tmp_path, steps=1000, step_seconds=0.01), listen)
    assert not alive(int((tmp_path / "scratch" / "pid").read_text()))
    assert workers(job(tmp_path / "good"), lambda event: None).exit_code == 0


def test_a_job_that_needs_the_hub_gets_a_worker_that_may_reach_it(tmp_path: Path, workers: WarmWorkers) -> None:
    rows = Artifact(Kind.SOURCE, "hf:a/b@1", tmp_path, "x")
    folder = tmp_path / "hub"
    workers(job(folder, {"source": (rows,)}, step_seconds=0.3), listen_for_parent(folder))
    assert parent_of_worker(folder) == str(os.getpid())


def test_a_killed_template_is_reported_and_then_done_without(tmp_path: Path, workers: WarmWorkers) -> None:
    def kill_template(event: dict[str, Any]) -> None:
        listen_for_parent(tmp_path)(event)
        if alive(int(parent_of_worker(tmp_path))):
            os.kill(int(parent_of_worker(tmp_path)), signal.SIGKILL)

    result = workers(job(tmp_path, steps=1000, step_seconds=0.01), kill_template)
    assert result.exit_code in (0, 1)  # 0 if the orphan finished before anybody noticed
    folder = tmp_path / "next"
    assert workers(job(folder, step_seconds=0.3), listen_for_parent(folder)).exit_code == 0
    assert parent_of_worker(folder) == str(os.getpid())


GPU = "class cuda:\n    is_available = staticmethod(lambda: True)\n"


@pytest.mark.parametrize(
    ("module", "content"),
    [("broken_library", "raise SystemError('broken')"), ("broken_library", "import sys; sys.exit(0)"), ("torch", GPU)],
    ids=["cannot be imported", "ends the process", "torch sees a GPU"],
)
def test_where_no_template_becomes_ready_every_worker_is_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, content: str
) -> None:
    (tmp_path / f"{module}.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with WarmWorkers([module]) as workers:
        for name in "ab":
            folder = tmp_path / name
            assert workers(job(folder, step_seconds=0.3), listen_for_parent(folder)).exit_code == 0
            assert parent_of_worker(folder) == str(os.getpid())


def test_when_the_controller_is_killed_fork_and_template_end(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.launch.test_warm import job; "
        "from ftcli.launch.warm import WarmWorkers\n"
        "folder = Path(sys.argv[1])\n"
        "with WarmWorkers(['tests.pipeline.toy']) as workers:\n"
        "    workers(job(folder / 'a'), lambda event: None)\n"
        "    workers(job(folder / 'b', steps=3000, step_seconds=0.01), lambda event: print('step', flush=True))\n"
    )
    controller = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert controller.stdout is not None
    controller.stdout.readline()
    fork = int((tmp_path / "b" / "scratch" / "pid").read_text())
    controller.kill()
    controller.wait()
    controller.stdout.close()
    deadline = time.monotonic() + 20
    while alive(fork) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(fork)
    done = tmp_path / "b" / "scratch" / "done"
    assert not done.exists() or int(done.read_text() or 0) < 3000


def test_a_socket_that_is_gone_is_an_error_with_a_next_step(
    tmp_path: Path, workers: WarmWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(warm.socket, "send_fds", broken)
    open_before = set(os.listdir("/proc/self/fd"))
    result = workers(job(tmp_path / "b"), lambda event: None)
    assert result.exit_code == 1
    assert result.hint == "run the same command again"
    assert set(os.listdir("/proc/self/fd")) == open_before


def test_a_listener_that_fails_after_the_worker_has_ended_leaves_replies_in_order(
    tmp_path: Path, workers: WarmWorkers
) -> None:
    def fail_late(event: dict[str, Any]) -> None:
        pid = int((tmp_path / "bad" / "scratch" / "pid").read_text())
        while alive(pid):
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers(job(tmp_path / "bad", steps=1), fail_late)
    assert workers(job(tmp_path / "worse", fail="error"), lambda event: None).exit_code == 1
    assert workers(job(tmp_path / "good"), lambda event: None).exit_code == 0
