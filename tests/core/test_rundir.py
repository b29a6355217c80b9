from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ftcli.core.artifacts import digest_records, file_records
from ftcli.core.errors import Busy, Corrupt, UsageError
from ftcli.core.rundir import Published, RunDir

FP = "0123456789ab"
OTHER = "ba9876543210"


def publish(run: RunDir, id: str = "prep", fp12: str = FP, text: str = "hello", ended: str = "2026-01-01") -> Published:
    work = run.begin(id, fp12)
    (work.out / "data").mkdir()
    (work.out / "data" / "train.jsonl").write_text(text)
    (work.out / "log.txt").write_text("log")
    return run.publish(work, id, fp12, {"data": "data"}, {"stage": "prep", "ended": ended})


def test_a_published_output_is_sealed_and_is_the_latest(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "deep" / "run")
    item = publish(run)
    assert item.path == run.root / "stages" / "prep" / FP
    assert run.published("prep", FP) == item
    assert run.latest("prep") == item
    assert os.readlink(run.root / "stages" / "prep" / "latest") == FP, "relative, so that the run can be moved"
    assert item.id == "prep"
    assert item.manifest["outputs"]["data"] == {
        "kind": "data",
        "digest": digest_records(file_records(item.output("data"))),
        "bytes": 5,
    }
    assert set(item.manifest["files"]) == {"data/train.jsonl", "log.txt"}
    assert run.pending() == {}


def test_nothing_is_there_before_it_is_published(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert (run.published("prep", FP), run.latest("prep"), run.ids(), run.pending()) == (None, None, [], {})
    assert not run.root.exists(), "reading makes nothing"
    work = run.begin("prep", FP)
    assert run.pending() == {f"prep-{FP}": work.path}
    assert run.folders() == []


def test_a_second_start_finds_scratch_and_an_empty_out(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    work = run.begin("prep", FP)
    (work.out / "half").touch()
    (work.scratch / "checkpoint").touch()
    again = run.begin("prep", FP)
    assert list(again.out.iterdir()) == []
    assert [path.name for path in again.scratch.iterdir()] == ["checkpoint"]


def test_publishing_drops_its_own_work_and_no_other(tmp_path: Path) -> None:
    """Checkpoints of an interrupted run with other settings may have cost hours."""
    run = RunDir(tmp_path)
    kept = [run.begin("prep", OTHER).path, run.begin("prep-2", FP).path, run.begin("pre", FP).path]
    publish(run)
    assert sorted(run.pending().values()) == sorted(kept)


def test_an_output_that_was_declared_and_not_written_is_a_bug(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    work = run.begin("prep", FP)
    with pytest.raises(RuntimeError, match="wrote nothing to its output 'data'"):
        run.publish(work, "prep", FP, {"data": "data"}, {})
    assert run.folders() == []


def test_a_new_output_of_the_same_fingerprint_replaces_the_old_one(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    publish(run, text="old")
    item = publish(run, text="new")
    assert (item.output("data") / "train.jsonl").read_text() == "new"
    assert item.damage(rehash=True) == []
    assert [path.name for path in (tmp_path / ".work").iterdir()] == []


@pytest.mark.parametrize(
    ("harm", "quick", "rehashed"),
    [
        (lambda path: (path / "log.txt").unlink(), ["log.txt: missing"], ["log.txt: missing"]),
        (
            lambda path: (path / "log.txt").write_text("longer"),
            ["log.txt: 6 bytes, recorded 3"],
            ["log.txt: 6 bytes, recorded 3"],
        ),
        (lambda path: (path / "log.txt").write_text("lag"), [], ["log.txt: content changed"]),
        (lambda path: (path / "data" / "new").touch(), [], ["data/new: not recorded"]),
    ],
)
def test_damage_is_named(tmp_path: Path, harm: object, quick: list[str], rehashed: list[str]) -> None:
    item = publish(RunDir(tmp_path))
    assert item.damage() == item.damage(rehash=True) == []
    harm(item.path)  # type: ignore[operator]
    assert item.damage() == quick
    assert item.damage(rehash=True) == rehashed


def test_all_damage_is_named_at_once(tmp_path: Path) -> None:
    item = publish(RunDir(tmp_path))
    (item.path / "log.txt").unlink()
    (item.path / "data" / "train.jsonl").write_text("hallo")
    (item.path / "data" / "new").touch()
    assert item.damage(rehash=True) == [
        "log.txt: missing",
        "data/new: not recorded",
        "data/train.jsonl: content changed",
    ]


def test_an_edited_stage_json_is_damage(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    path = publish(run).path / "stage.json"
    path.write_text(path.read_text().replace("2026-01-01", "2027-01-01"))
    found = run.published("prep", FP)
    assert found is not None
    assert found.damage(rehash=True) == ["stage.json: content changed"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\x00", '{"schema": 99}', "{}"])
def test_a_stage_json_that_cannot_be_read_is_corrupt_and_named(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    path = publish(run).path / "stage.json"
    path.write_text(text)
    with pytest.raises(Corrupt, match=str(path)):
        run.published("prep", FP)
    with pytest.raises(Corrupt):
        run.latest("prep")


def test_a_newer_schema_asks_for_the_newer_program(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    path = publish(run).path / "stage.json"
    path.write_text('{"schema": 2}')
    with pytest.raises(Corrupt, match="schema 2, this ftcli reads 1") as caught:
        run.latest("prep")
    assert caught.value.hint == "use the ftcli version that wrote it"


def test_a_copy_that_lost_its_links_still_has_a_latest(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    publish(run, fp12=FP, ended="2026-01-02")
    publish(run, fp12=OTHER, ended="2026-01-01")
    link = tmp_path / "stages" / "prep" / "latest"
    assert os.readlink(link) == OTHER
    link.unlink()
    latest = run.latest("prep")
    assert latest is not None
    assert latest.path.name == FP, "the one that ended last"
    link.symlink_to("gone")
    assert run.latest("prep") == latest


def test_a_copy_that_made_folders_of_links_is_repaired(tmp_path: Path) -> None:
    """`scp -r` does."""
    publish(RunDir(tmp_path / "run"))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    run = RunDir(tmp_path / "copy")
    assert [path.name for path in run.folders()] == [FP]
    item = run.latest("prep")
    assert item is not None
    assert not run.is_settled(item)
    run.settle(item)
    assert run.is_settled(item)
    assert os.readlink(tmp_path / "copy" / "stages" / "prep" / "latest") == FP


def test_the_lock_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with run.lock("prep"):
        with pytest.raises(Busy, match=f"stage prep is being worked on by process {os.getpid()} on .* since "):
            run.lock("prep").__enter__()
        with run.lock("other"):
            pass
    with run.lock("prep"):
        pass


def test_a_long_holder_is_not_left_behind_a_short_one(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "prep.lock").write_text("x" * 500)
    with run.lock("prep"), pytest.raises(Busy) as caught, run.lock("prep"):
        pytest.fail("the lock was free")
    assert "xx" not in caught.value.message


def test_ids_come_in_the_order_of_the_index_then_by_name(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for id in ("b", "a", "c", "d"):
        publish(run, id)
    (tmp_path / "stages" / ".DS_Store").touch()
    run.write_index("x", ["c", "nothing-yet", "a"])
    assert run.ids() == ["c", "a", "b", "d"]
    assert [item.id for item in run.all_latest()] == ["c", "a", "b", "d"]


def test_the_index_grows_and_keeps_its_beginning(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_index("first", ["a", "b"])
    created = run.index()["created"]
    run.write_index("second", ["b", "c"])
    assert run.index() == {"schema": 1, "name": "second", "created": created, "order": ["b", "c", "a"]}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"order": 3}'])
def test_a_lost_index_is_no_loss(tmp_path: Path, content: bytes) -> None:
    run = RunDir(tmp_path)
    publish(run)
    (tmp_path / "run.json").write_bytes(content)
    assert run.index() == {}
    assert run.ids() == ["prep"]
    run.write_index("x", ["prep"])
    assert json.loads((tmp_path / "run.json").read_text())["order"] == ["prep"]


def test_an_index_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_index("x", ["a"])
    before = (tmp_path / "run.json").stat().st_ino
    run.write_index("x", ["a"])
    assert (tmp_path / "run.json").stat().st_ino == before


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_file_is_no_run_directory(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file"):
        RunDir(tmp_path / where)
