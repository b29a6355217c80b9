from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftcli.core.errors import DiskError
from ftcli.training import checkpoints


def written(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "weights").write_text(text)
    return folder


def test_the_newest_sealed_checkpoint_is_found_and_older_ones_go(tmp_path: Path) -> None:
    for step in (2, 10):
        checkpoints.seal(written(tmp_path / "staging", f"w{step}"), tmp_path / "all", step, {"tokens": step})
    found = checkpoints.newest(tmp_path / "all")
    assert found == (tmp_path / "all" / "step-10", 10, {"tokens": 10})
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["step-10"]
    assert (found[0] / "weights").read_text() == "w10"


def test_none_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "all") is None


@pytest.mark.parametrize("marker", [None, "", '{"step": 9, "prog'])
def test_a_checkpoint_without_a_whole_marker_is_passed_over(tmp_path: Path, marker: str | None) -> None:
    checkpoints.seal(written(tmp_path / "staging", "good"), tmp_path / "all", 3, {})
    torn = written(tmp_path / "all" / "step-9", "half")
    if marker is not None:
        (torn / checkpoints.MARKER).write_text(marker)
    found = checkpoints.newest(tmp_path / "all")
    assert found is not None
    assert found[1] == 3


def test_a_torn_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    written(tmp_path / "all" / "step-3", "half")
    sealed = checkpoints.seal(written(tmp_path / "staging", "good"), tmp_path / "all", 3, {})
    assert (sealed / "weights").read_text() == "good"


def disk_with(free_bytes: int) -> Any:
    return lambda path: SimpleNamespace(f_bavail=free_bytes // 4096, f_frsize=4096)


def test_a_checkpoint_is_not_begun_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr("os.statvfs", disk_with(10 * 2**20))
    checkpoints.require_space(folder, 9 * 2**20)
    with pytest.raises(DiskError, match=r"takes about 11 MiB, 10 MiB are free$") as raised:
        checkpoints.require_space(folder, 10 * 2**20)
    assert "free some space" in raised.value.hint


def test_the_last_checkpoint_tells_how_much_room_the_next_one_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = written(tmp_path / "written", "x" * 20 * 2**20)
    checkpoints.seal(staged, tmp_path / "checkpoints", 2, {})
    monkeypatch.setattr("os.statvfs", disk_with(10 * 2**20))
    with pytest.raises(DiskError, match="takes about 22 MiB, 10 MiB are free; the checkpoint of step 2 is kept"):
        checkpoints.require_space(tmp_path / "checkpoints", 1)
