from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ftcli.core.artifacts import digest_records, file_records
from ftcli.pipeline import digests
from ftcli.pipeline.digests import content_digest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests.json"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be digested."""
    found: list[str] = []
    sha256 = digests.file_sha256

    def record(path: Path) -> str:
        found.append(path.name)
        return sha256(path)

    monkeypatch.setattr(digests, "file_sha256", record)
    return found


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time()
    monkeypatch.setattr(digests.time, "time", lambda: now + seconds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    for name in ("a", "b"):
        (tmp_path / "x" / name).write_text(name)
    return tmp_path / "x"


def test_it_is_the_digest_of_the_records(folder: Path) -> None:
    assert content_digest(folder) == digest_records(file_records(folder))
    assert content_digest(folder / "a") == digest_records(file_records(folder / "a"))


def test_a_file_is_read_once(folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, 10)
    assert content_digest(folder) == content_digest(folder)
    assert reads == ["a", "b"]


def test_a_file_that_was_just_written_is_not_remembered(folder: Path, reads: list[str], cache: Path) -> None:
    content_digest(folder)
    content_digest(folder)
    assert reads == ["a", "b", "a", "b"]
    assert not cache.exists()


@pytest.mark.parametrize("trick", ["write", "touch", "write and set the time back", "replace"])
def test_a_changed_file_is_read_again(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, trick: str
) -> None:
    later(monkeypatch, 10)
    before, stat = content_digest(folder), (folder / "a").stat()
    time.sleep(0.02)
    if trick == "touch":
        (folder / "a").touch()
    elif trick == "replace":
        (folder / "new").write_text("A")
        os.utime(folder / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        (folder / "new").replace(folder / "a")
    else:
        (folder / "a").write_text("A")
        if "back" in trick:
            os.utime(folder / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (content_digest(folder) == before) == (trick == "touch")
    assert reads == ["a", "b", "a"]


def test_a_moved_folder_is_read_again_and_has_the_same_digest(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later(monkeypatch, 10)
    before = content_digest(folder)
    assert content_digest(folder.rename(folder.with_name("y"))) == before
    assert len(reads) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_a_damaged_store_is_no_loss(folder: Path, cache: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir()
    cache.write_text(content, errors="surrogateescape")
    later(monkeypatch, 10)
    assert content_digest(folder) == digest_records(file_records(folder))
    assert len(json.loads(cache.read_text())) == 2


def test_a_home_that_cannot_be_written_only_costs_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "file" / "cache"))
    later(monkeypatch, 10)
    assert content_digest(folder) == digest_records(file_records(folder))
