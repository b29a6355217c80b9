from __future__ import annotations

from pathlib import Path

import pytest

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
