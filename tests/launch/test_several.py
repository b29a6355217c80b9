"""Several workers for one job: what they share, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.rundir import RunDir
from ftcli.launch.process import run_in_workers
from ftcli.launch.spec import Job, Result
from ftcli.launch.warm import WarmWorkers
from ftcli.pipeline.runner import Task, execute
from tests.launch.shared_toy import SHARE, TARGET, ShareConfig, job
from tests.pipeline.conftest import toy_stages as toy_stages
from tests.pipeline.toy import ROOT

pytestmark = [pytest.mark.usefixtures("toy_stages"), pytest.mark.enable_socket]  # a free port is looked for


def ignore(event: dict[str, Any]) -> None:
    """Nobody watches."""


def pids(folder: Path, processes: int = 2) -> list[int]:
    places = [folder / "scratch", *(folder / "scratch" / f"rank-{rank}" for rank in range(1, processes))]
    return [int((place / "pid").read_text()) for place in places if (place / "pid").exists()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ranks_meet_and_only_rank_0_tells_and_writes(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    result = run_in_workers(job(tmp_path, processes=3), told.append)
    assert result.exit_code == 0, result
    assert (tmp_path / "out" / "data" / "said.txt").read_text() == "0/3 1/3 2/3"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data"]
    assert [event.get("step") or event["text"] for event in told] == [1, 2, 3, "rank 0 has written"]
    assert (result.facts["toy/rank"], result.facts["perf/processes"]) == (0, 3)
    scratch = tmp_path / "scratch"
    assert (scratch / "log.txt").read_text() == "rank 0 of 3\n"
    assert (scratch / "rank-2" / "log.txt").read_text() == "rank 2 of 3\n"
    second = Result.read(scratch / "rank-2")
    assert second is not None
    assert second.facts["toy/rank"] == 2


def test_ranks_meet_over_gloo(tmp_path: Path) -> None:
    result = run_in_workers(job(tmp_path, gloo=True), ignore)
    assert result.exit_code == 0, result
    assert (tmp_path / "out" / "data" / "said.txt").read_text() == "0/2 1/2"


def test_of_a_killed_rank_and_one_that_lost_its_connection_the_killed_one_is_named(tmp_path: Path) -> None:
    result = run_in_workers(job(tmp_path, gloo=True, fail="kill"), ignore)
    assert (result.exit_code, result.message) == (1, "rank 1 of 2: the worker was killed by SIGKILL")
    other = Result.read(tmp_path / "scratch")
    assert other is not None
    assert "onnection" in other.message


@pytest.mark.parametrize(
    ("fail", "failing", "code", "words"),
    [
        ("usage", 0, 2, "this setting is wrong"),
        ("error", 1, 1, "RuntimeError: out of luck"),
        ("kill", 1, 1, "the worker was killed by SIGKILL"),
        ("exit", 0, 1, "the worker ended with code 9 and no result"),
    ],
)
def test_one_rank_that_fails_ends_the_others_and_is_named(
    tmp_path: Path, fail: str, failing: int, code: int, words: str
) -> None:
    result = run_in_workers(job(tmp_path, fail=fail, failing_rank=failing), ignore)
    assert result.exit_code == code
    assert result.message.startswith(f"rank {failing} of 2: {words}")
    log = tmp_path / "scratch" / ("rank-1/log.txt" if failing else "log.txt")
    assert result.hint.endswith(f"its log is {log}")
    assert result.hint.startswith("set another; ") == (fail == "usage")
    assert len(pids(tmp_path)) == 2
    assert not any(alive(pid) for pid in pids(tmp_path))
    assert Result.read(tmp_path / "scratch" / ("" if failing else "rank-1")) is None, "it would have waited for ever"


def test_what_ranks_left_of_an_earlier_try_is_not_taken_for_this_one(tmp_path: Path) -> None:
    started = job(tmp_path, fail="kill")
    (tmp_path / "scratch" / "rank-1" / "out" / "old").mkdir(parents=True)
    Result(0).write(tmp_path / "scratch" / "rank-1")
    assert run_in_workers(started, ignore).message.startswith("rank 1 of 2: the worker was killed")
    assert not (tmp_path / "scratch" / "rank-1" / "out" / "old").exists()


def test_a_signal_stops_all_ranks_at_one_step_and_they_go_on_from_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def send_at_the_first_step(event: dict[str, Any]) -> None:
        if event.get("step") == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    result = run_in_workers(job(tmp_path, steps=1000, step_seconds=0.01), send_at_the_first_step)
    assert result.exit_code == 75
    assert result.message.startswith("stopped after step ")
    ended = [Result.read(tmp_path / "scratch" / name) for name in ("", "rank-1")]
    assert [one and (one.exit_code, one.message) for one in ended] == [(75, result.message)] * 2
    done = int((tmp_path / "scratch" / "done").read_text())
    assert 1 <= done < 1000
    assert capfd.readouterr().err.count("SIGTERM: finishing the step and saving") == 1
    told: list[dict[str, Any]] = []
    assert run_in_workers(job(tmp_path, steps=done + 2), told.append).exit_code == 0
    assert told[0]["toy/first_step"] == done + 1


def test_one_rank_told_by_the_terminal_stops_all(tmp_path: Path) -> None:
    def send_to_rank_1(event: dict[str, Any]) -> None:
        if event.get("step") == 1:
            os.kill(pids(tmp_path)[1], signal.SIGINT)

    assert run_in_workers(job(tmp_path, steps=1000, step_seconds=0.01), send_to_rank_1).exit_code == 75


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    def send_twice(event: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_in_workers(job(tmp_path, steps=1000, step_seconds=0.01), send_twice)
    assert len(pids(tmp_path)) == 2
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_a_stage_that_cannot_stop_is_interrupted_on_all_ranks(tmp_path: Path) -> None:
    def send(event: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    started = job(tmp_path, target="tests.launch.shared_toy:UNSTOPPABLE", steps=1000, step_seconds=0.01)
    with pytest.raises(KeyboardInterrupt):
        run_in_workers(started, send)
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_when_the_controller_is_killed_all_ranks_end(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.launch.shared_toy import job; "
        "from ftcli.launch.process import run_in_workers\n"
        "started = job(Path(sys.argv[1]), steps=3000, step_seconds=0.01)\n"
        "run_in_workers(started, lambda event: print('step', flush=True))\n"
    )
    controller = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert controller.stdout is not None
    controller.stdout.readline()
    ranks = pids(tmp_path)
    controller.kill()
    controller.wait()
    controller.stdout.close()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(ranks) == 2
    assert not any(alive(pid) for pid in ranks)


def share_task(processes: int, **settings: Any) -> Task:
    return Task("share", TARGET, SHARE, ShareConfig(**settings), {}, processes)


def test_after_memory_ran_out_on_one_rank_all_start_again_with_less(tmp_path: Path) -> None:
    said: list[str] = []
    done = execute(share_task(2, room=4), RunDir(tmp_path), run_in_workers, ignore, said.append)
    assert said == [
        "share: run (first time)",
        "share: out of memory; again with batch 4",
    ]
    assert (done.output("data") / "said.txt").read_text() == "0/2 1/2"
    assert done.manifest["config"]["batch"] == 8


def test_how_many_processes_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    said: list[str] = []
    done = [
        execute(share_task(processes), RunDir(tmp_path), run_in_workers, ignore, said.append) for processes in (2, 1)
    ]
    assert done[0].path == done[1].path
    assert said == ["share: run (first time)", "share: cached"]


def test_the_published_folder_holds_nothing_of_the_other_ranks(tmp_path: Path) -> None:
    done = execute(share_task(2), RunDir(tmp_path), run_in_workers, ignore, ignore_text)
    assert sorted(path.name for path in done.path.iterdir()) == ["data", "log.txt", "metrics.jsonl", "stage.json"]


def ignore_text(text: str) -> None:
    """Nobody reads."""


def test_a_shared_job_of_a_recipe_gets_plain_workers(tmp_path: Path) -> None:
    with WarmWorkers(["tests.launch.shared_toy"]) as workers:
        assert workers(job(tmp_path / "a", processes=1), ignore).exit_code == 0
        assert workers(job(tmp_path / "b"), ignore).exit_code == 0
        assert workers(job(tmp_path / "c", processes=1), ignore).exit_code == 0
    assert (tmp_path / "b" / "out" / "data" / "said.txt").read_text() == "0/2 1/2"


def test_a_job_of_several_survives_its_file(tmp_path: Path) -> None:
    started = job(tmp_path)
    assert Job.read(started.write()) == started
    other = started.of_rank(1)
    assert (other.scratch, other.out) == (tmp_path / "scratch" / "rank-1", tmp_path / "scratch" / "rank-1" / "out")
    assert started.of_rank(0) is started
