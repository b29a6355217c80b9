from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.launch.environment import rank_environments, refuse_other_launchers, worker_environment
from ftcli.launch.gpus import installed_gpus, one_gpu_each, visible_gpus
from ftcli.launch.spec import Job

pytestmark = pytest.mark.enable_socket  # a free port is looked for


def job(processes: int = 1, **inputs: tuple[Artifact, ...]) -> Job:
    return Job("x:y", {}, inputs, Path("out"), Path("scratch"), processes)


class Driver:
    """NVML as ctypes would load it, on a machine with some GPUs."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0 if self._gpus else 9  # the driver is not loaded

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._gpus
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that tells of so many GPUs, and a user who has chosen none of them."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(request.param))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_workers_are_offline_unless_rows_come_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def environment(kind: Kind, ref: str) -> dict[str, str]:
        return worker_environment(job(given=(Artifact(kind, ref, Path(), "x"),)))

    assert environment(Kind.MODEL, "hf:a/b@1")["HF_HUB_OFFLINE"] == "1"
    assert environment(Kind.SOURCE, "/x.jsonl")["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(Kind.SOURCE, "hf:a/b@1")
    assert environment(Kind.DATA, "x")["HF_HUB_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("gpus", [8], indirect=True)
def test_one_process_gets_one_gpu_and_no_ranks(gpus: None) -> None:
    (only,) = rank_environments(job())
    assert only["CUDA_VISIBLE_DEVICES"] == "0"
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT"} & set(only)


def test_several_processes_get_the_variables_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = rank_environments(job(processes=3))
    assert [(one["RANK"], one["LOCAL_RANK"]) for one in found] == [("0", "0"), ("1", "1"), ("2", "2")]
    for one in found:
        assert (one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"], one["MASTER_ADDR"]) == ("3", "3", "127.0.0.1")
        assert one["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 3))
    assert len({one["MASTER_PORT"] for one in found}) == 1
    assert 1023 < int(found[0]["MASTER_PORT"]) < 65536


def test_the_users_number_of_threads_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert [one["OMP_NUM_THREADS"] for one in rank_environments(job(processes=2))] == ["7", "7"]


@pytest.mark.parametrize("gpus", [4], indirect=True)
def test_each_process_sees_one_gpu_of_those_the_user_sees(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_gpus() == 4
    assert [one["CUDA_VISIBLE_DEVICES"] for one in rank_environments(job(processes=2))] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5e9f,1")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in rank_environments(job(processes=2))] == ["3", "GPU-5e9f"]


@pytest.mark.parametrize("gpus", [4], indirect=True)
@pytest.mark.parametrize(
    ("chosen", "seen"), [(None, "4 visible (0, 1, 2, 3)"), ("2,3", "2 visible (2, 3)"), ("1", "1 visible (1)")]
)
def test_fewer_gpus_than_processes_are_refused(
    gpus: None, monkeypatch: pytest.MonkeyPatch, chosen: str | None, seen: str
) -> None:
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    with pytest.raises(UsageError) as caught:
        rank_environments(job(processes=5))
    assert caught.value.message == f"5 processes need a GPU each, {seen}"
    assert caught.value.hint.startswith(f"ask for {seen[0]}, or set CUDA_VISIBLE_DEVICES= to nothing")


@pytest.mark.parametrize("gpus", [4], indirect=True)
def test_a_user_who_hides_all_gpus_trains_on_the_cpu(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in rank_environments(job(processes=9))] == [""] * 9


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_a_driver_that_cannot_start_tells_of_no_gpu(gpus: None) -> None:
    assert installed_gpus() == 0
    assert one_gpu_each(9) == []


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftcli.launch.gpus.NVML", "libno-such-driver.so")
    assert installed_gpus() == 0


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, ["0", "1"]),
        ("1,0", ["1", "0"]),
        (" 1 , 0", ["1", "0"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["0"]),
        ("MIG-1,GPU-2", ["MIG-1", "GPU-2"]),
        ("none", []),
    ],
)
def test_visible_gpus_are_those_that_cuda_shows(chosen: str | None, seen: list[str]) -> None:
    """The rules are those of the CUDA C++ Programming Guide, "CUDA Environment Variables": indices from the first that is not
    valid on are invisible."""
    environment = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert visible_gpus(environment, 2) == seen
    assert visible_gpus(environment, 0) == []


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "4"}, {"RANK": "1"}])
def test_a_command_that_was_started_once_is_no_rank(environment: dict[str, str]) -> None:
    refuse_other_launchers(environment, "with --processes N")


def test_a_rank_of_another_launcher_is_refused() -> None:
    with pytest.raises(UsageError, match="rank 1 of 2 by RANK and WORLD_SIZE") as caught:
        refuse_other_launchers({"RANK": "1", "WORLD_SIZE": "2"}, "with --processes N")
    assert caught.value.hint == "start the command once, with --processes N"
