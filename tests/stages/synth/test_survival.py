"""A worker that is killed while the teacher answers: the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from ftcli.data.rows import read_jsonl
from tests.models.fake_chat import Answer, serving
from tests.stages.synth.teaching import seeds, written


@pytest.mark.enable_socket
def test_killed_while_asking_it_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    is_sixth = Event()

    def answer(body: dict[str, Any]) -> Answer:
        if len(teacher.bodies) == 6:
            is_sixth.set()
            is_killed.wait(60)
        return written(body)

    is_killed = Event()
    with serving(answer) as teacher:
        command = [
            sys.executable,
            "-m",
            "ftcli",
            "synth",
            "--run",
            tmp_path / "run",
            "--seeds",
            seeds(tmp_path / "seeds"),
        ]
        command += [
            "--teacher-url",
            teacher.url,
            "--teacher-model",
            "big",
            "--requests",
            "9",
            "--concurrency",
            "1",
            "--json",
        ]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            assert is_sixth.wait(120)
        finally:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            is_killed.set()
        before = [body["seed"] for body in teacher.bodies[:5]]
        teacher.bodies.clear()
        teacher.answer = written
        again = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert again.returncode == 0, again.stderr
    assert len(teacher.bodies) == 4
    assert not {body["seed"] for body in teacher.bodies} & set(before)
    found = json.loads(again.stdout)["outputs"]
    assert len(list(read_jsonl(Path(found["data"]["path"]) / "train.jsonl"))) == 9
    assert len(list(read_jsonl(Path(found["report"]["path"]) / "requests.jsonl"))) == 9
