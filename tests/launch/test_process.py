from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftcli.launch.process import run_in_workers
from ftcli.launch.spec import Job, Result
from tests.pipeline.conftest import toy_stages as toy_stages

pytestmark = pytest.mark.usefixtures("toy_stages")


def job(folder: Path, **settings: Any) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir(exist_ok=True)
    return Job("tests.pipeline.toy:MAKE", settings, {}, folder / "out", folder / "scratch")


def test_events_come_back_and_output_goes_to_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user hid a library')")
    told: list[dict[str, Any]] = []
    result = run_in_workers(job(tmp_path, steps=2), told.append)
    assert result.exit_code == 0, result
    assert [(event["event"], event.get("step")) for event in told] == [
        ("metrics", 1),
        ("progress", None),
        ("metrics", 2),
        ("progress", None),
    ]
    assert (tmp_path / "scratch" / "log.txt").read_text() == "made 2 rows\n"
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_fails_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    result = run_in_workers(job(tmp_path, fail="error"), lambda event: None)
    assert (result.exit_code, result.message) == (1, "RuntimeError: out of luck")
    assert "Traceback" in (tmp_path / "scratch" / "log.txt").read_text()


def test_the_result_of_an_earlier_try_is_not_taken_for_this_one(tmp_path: Path) -> None:
    started = job(tmp_path, fail="kill")
    Result(0, facts={"old": 1}).write(tmp_path / "scratch")
    result = run_in_workers(started, lambda event: None)
    assert result.exit_code == 1
    assert "killed by SIGKILL" in result.message


def test_a_failing_listener_ends_the_worker(tmp_path: Path) -> None:
    def listen(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_workers(job(tmp_path, steps=1000, step_seconds=0.01), listen)
    done = tmp_path / "scratch" / "done"  # killed at its first event, a worker may not have made it yet
    assert not done.exists() or int(done.read_text() or 0) < 1000
    assert not (tmp_path / "scratch" / "result.json").exists()


def test_the_job_file_is_readable(tmp_path: Path) -> None:
    run_in_workers(job(tmp_path, text="ü"), lambda event: None)
    value = json.loads((tmp_path / "scratch" / "job.json").read_text(encoding="utf-8"))
    assert value["target"] == "tests.pipeline.toy:MAKE"
    assert value["config"] == {"text": "ü"}
