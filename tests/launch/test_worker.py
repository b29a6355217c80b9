from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, Diverged, FtcliError
from ftcli.launch.inline import run_inline
from ftcli.launch.spec import Job, Result
from ftcli.launch.worker import LESS_MEMORY, classify
from ftcli.stages.dpo.config import DpoConfig
from ftcli.stages.ppo.config import PpoConfig


def job(folder: Path, target: str = "tests.pipeline.toy:MAKE", **settings: Any) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir(exist_ok=True)
    return Job(target, settings, {}, folder / "out", folder / "scratch")


def test_success_carries_the_stages_facts_seconds_and_peak_memory(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    result = run_inline(job(tmp_path), told.append)
    assert result.exit_code == 0
    assert result.facts["toy/first_step"] == 1
    assert 0 < result.facts["perf/worker_seconds"] < 10
    assert 2**20 < result.facts["perf/peak_memory_bytes"] < 2**36
    assert Result.read(tmp_path / "scratch") == result
    assert {event["event"] for event in told} == {"metrics", "progress"}


def test_what_a_stage_prints_does_not_reach_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_inline(job(tmp_path), lambda event: None)
    assert capsys.readouterr() == ("", "made 3 rows\n")


def test_an_error_for_users_keeps_its_code_message_and_hint(tmp_path: Path) -> None:
    result = run_inline(job(tmp_path, fail="bad-data"), lambda event: None)
    assert (result.exit_code, result.message, result.hint) == (65, "row 2 is bad", "repair row 2")


def test_any_other_error_is_a_failure_with_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_inline(job(tmp_path, fail="error"), lambda event: None)
    assert (result.exit_code, result.message) == (1, "RuntimeError: out of luck")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "settings"), [("tests.pipeline.nothing:X", {}), ("tests.pipeline.toy:MAKE", {"steps": 0})]
)
def test_a_job_that_cannot_start_is_a_failure(tmp_path: Path, target: str, settings: dict[str, Any]) -> None:
    assert run_inline(job(tmp_path, target, **settings), lambda event: None).exit_code == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 74),
        (OSError(errno.EROFS, "Read-only file system"), 74),
        (
            RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed: No space left on device"),
            74,
        ),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), 74),
        (MemoryError(), 71),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), 71),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 71),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 71),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 1),
        (ValueError("wrong"), 1),
        (BadData("bad"), 65),
        (Diverged("nan"), 72),
    ],
)
def test_what_libraries_raise_is_recognised(error: BaseException, code: int) -> None:
    found = classify(error)
    assert isinstance(found, FtcliError)
    assert found.exit_code == code
    assert code in (1, 65, 72) or found.hint


def test_what_is_advised_when_memory_ran_out_are_settings() -> None:
    named = set(re.findall(r"[a-z]+(?:_[a-z]+)+", LESS_MEMORY))
    assert named - set(PpoConfig.model_fields) == {"max_length"}
    assert {"max_prompt_length", "response_length"} <= named, "ppo has lengths of its own"
    assert {"micro_batch_size", "max_length", "gradient_checkpointing"} <= named & set(DpoConfig.model_fields)
