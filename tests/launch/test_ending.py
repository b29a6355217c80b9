from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ftcli.core.events import Events
from ftcli.core.stop import Stop
from ftcli.launch.ending import memory_kills, result_of, result_of_all
from ftcli.launch.spec import Job, Result


def job(folder: Path, processes: int = 1) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir()
    made = Job("tests.pipeline.toy:MAKE", {}, {}, folder / "out", folder / "scratch", processes)
    made.write()
    return made


def leave(made: Job, rank: int, result: Result, second: int = 0) -> None:
    """Let ``rank`` have left ``result`` at that second."""
    folder = made.of_rank(rank).scratch
    result.write(folder)
    os.utime(folder / "result.json", (second, second))


def ending(made: Job, codes: dict[int, int], stop: Stop | None = None) -> tuple[int, str]:
    found = result_of_all(made, codes, stop or Stop(), memory_kills())
    return found.exit_code, found.message


def asked(by: str) -> Stop:
    stop = Stop()
    stop.ask(by)
    return stop


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n"),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
    ids=["v2", "v1"],
)
def test_kills_for_memory_are_counted(name: str, text: str, tmp_path: Path) -> None:
    assert memory_kills(tmp_path) == 0
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert memory_kills(tmp_path) == 2


def test_a_worker_killed_for_memory_leaves_what_it_had_said_of_itself(tmp_path: Path) -> None:
    killed = job(tmp_path)
    Events(tmp_path / "scratch").summarize({"batch": 4})
    result = result_of(killed, -signal.SIGKILL, Stop(), kills=-1)  # one more than before
    assert (result.exit_code, dict(result.facts)) == (71, {"batch": 4})
    assert result_of(killed, -signal.SIGKILL, Stop(), memory_kills()).exit_code == 1
    killed.write()
    assert result_of(killed, -signal.SIGKILL, Stop(), kills=-1).facts == {}


def test_a_worker_that_was_stopped_before_it_could_listen_has_stopped(tmp_path: Path) -> None:
    made = job(tmp_path)
    result = result_of(made, -signal.SIGTERM, asked("SIGINT"), 0)
    assert result == Result(75, "stopped by SIGINT before the first step", "the same command goes on")
    assert result_of(made, -signal.SIGTERM, Stop(), 0).exit_code == 1


def test_where_all_is_well_rank_0_speaks(tmp_path: Path) -> None:
    made = job(tmp_path, 2)
    leave(made, 0, Result(0, facts={"rank": 0}))
    leave(made, 1, Result(0, facts={"rank": 1}))
    assert result_of_all(made, {1: 0, 0: 0}, Stop(), 0) == Result(0, facts={"rank": 0})


def test_of_several_failures_the_earliest_is_named_whatever_its_rank(tmp_path: Path) -> None:
    made = job(tmp_path, 3)
    leave(made, 0, Result(1, "connection closed by peer"), second=12)
    leave(made, 1, Result(1, "connection closed by peer"), second=11)
    leave(made, 2, Result(65, "row 2 is bad", "repair it", {"rank": 2}), second=10)
    found = result_of_all(made, {0: 1, 1: 1, 2: 65}, Stop(), 0)
    log = tmp_path / "scratch" / "rank-2" / "log.txt"
    assert found == Result(65, "rank 2 of 3: row 2 is bad", f"repair it; its log is {log}", {"rank": 2})


def test_a_rank_that_failed_after_rank_0_had_succeeded_is_a_failure(tmp_path: Path) -> None:
    made = job(tmp_path, 2)
    leave(made, 0, Result(0))
    assert ending(made, {0: 0, 1: -signal.SIGSEGV}) == (1, "rank 1 of 2: the worker was killed by SIGSEGV")


def test_a_rank_that_died_without_a_word_comes_before_those_that_miss_it(tmp_path: Path) -> None:
    made = job(tmp_path, 2)
    leave(made, 0, Result(1, "connection closed by peer"), second=10)
    assert ending(made, {0: 1, 1: -signal.SIGKILL}) == (1, "rank 1 of 2: the worker was killed by SIGKILL")


def test_a_rank_that_was_aborted_comes_after_one_that_says_what_went_wrong(tmp_path: Path) -> None:
    made = job(tmp_path, 2)
    leave(made, 1, Result(65, "row 2 is bad"), second=10)
    assert ending(made, {0: -signal.SIGABRT, 1: 65}) == (65, "rank 1 of 2: row 2 is bad")


def test_a_rank_that_the_kernel_killed_for_memory_is_found_among_those_ended_for_it(tmp_path: Path) -> None:
    made = job(tmp_path, 3)
    Events(tmp_path / "scratch" / "rank-1").summarize({"batch": 4})
    found = result_of_all(made, {1: -signal.SIGKILL}, Stop(), kills=-1)
    assert (found.exit_code, dict(found.facts)) == (71, {"batch": 4})
    assert found.message == "rank 1 of 3: the kernel killed the worker when memory ran out"


def test_where_all_stopped_rank_0_speaks(tmp_path: Path) -> None:
    made = job(tmp_path, 2)
    leave(made, 0, Result(75, "stopped after step 3"), second=12)
    leave(made, 1, Result(75, "rank 1 stopped"), second=10)
    assert ending(made, {0: 75, 1: 75}, asked("SIGTERM")) == (75, "stopped after step 3")


def test_ranks_stopped_before_they_could_listen_have_stopped(tmp_path: Path) -> None:
    made = job(tmp_path, 2)  # rank 0 waited for the other and had to be ended
    text = "stopped by SIGTERM before the first step"
    assert ending(made, {1: -signal.SIGTERM}, asked("SIGTERM")) == (75, text)


def test_a_rank_that_failed_while_others_stopped_is_a_failure(tmp_path: Path) -> None:
    made = job(tmp_path, 2)
    leave(made, 0, Result(74, "the disk is full"), second=10)
    leave(made, 1, Result(75, "stopped"), second=12)
    assert ending(made, {0: 74, 1: 75}, asked("SIGTERM")) == (74, "rank 0 of 2: the disk is full")
