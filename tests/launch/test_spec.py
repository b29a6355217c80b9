from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import BadData, FtcliError
from ftcli.core.stage import Artifact, Kind
from ftcli.launch.spec import Job, Result, load_stage
from ftcli.stages import STAGES
from tests.pipeline.toy import MAKE


def job(folder: Path) -> Job:
    item = Artifact(Kind.DATA, "x", folder / "ü y", "sha256:1", "label")
    return Job(
        "tests.pipeline.toy:MAKE", {"text": "ü"}, {"data": (item,)}, folder / "out", folder, 1, folder / "desk.sqlite"
    )


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    assert Job.read(job(tmp_path).write()) == job(tmp_path)
    assert job(tmp_path).stage() is MAKE


def test_a_new_job_removes_the_result_of_an_earlier_try(tmp_path: Path) -> None:
    Result(65, "old").write(tmp_path)
    job(tmp_path).write()
    assert Result.read(tmp_path) is None


def test_a_failure_is_raised_again_as_what_it_was(tmp_path: Path) -> None:
    Result(65, "row 2 is bad", "repair it", {"a/b": 1}).write(tmp_path)
    found = Result.read(tmp_path)
    assert found == Result(65, "row 2 is bad", "repair it", {"a/b": 1})
    with pytest.raises(BadData, match="row 2 is bad") as caught:
        found.raise_for_failure()
    assert caught.value.hint == "repair it"
    Result(0).raise_for_failure()
    with pytest.raises(FtcliError):
        Result(99, "unknown").raise_for_failure()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"wrong": 1}', b"\xff"])
def test_half_a_result_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.json").write_bytes(content)
    assert Result.read(tmp_path) is None


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_of_the_table_can_be_loaded_under_its_name(name: str) -> None:
    assert load_stage(STAGES[name][0]).name == name
