from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftcli.core import artifacts
from ftcli.core.artifacts import digest_records, file_records, fsync_tree, put_in_place, walk, write_json


def digest(root: Path) -> str:
    return digest_records(file_records(root))


def tree(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("alpha")
    (root / "sub" / "b.bin").write_bytes(bytes(range(256)))
    return root


def test_the_digest_is_what_the_docstring_says(tmp_path: Path) -> None:
    tree(tmp_path / "x")
    lines = [
        f"a.txt\0005\000{hashlib.sha256(b'alpha').hexdigest()}\n",
        f"sub/b.bin\000256\000{hashlib.sha256(bytes(range(256))).hexdigest()}\n",
    ]
    assert digest(tmp_path / "x") == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    first = tree(tmp_path / "first")
    second = Path(shutil.copytree(first, tmp_path / "elsewhere" / "second"))
    os.utime(second / "a.txt", (1, 1))
    (second / "a.txt").chmod(0o600)
    (second / "empty").mkdir()
    assert digest(first) == digest(second)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a.txt").write_text("alphb"),
        lambda root: (root / "a.txt").rename(root / "c.txt"),
        lambda root: (root / "a.txt").rename(root / "sub" / "a.txt"),
        lambda root: (root / "sub" / "b.bin").unlink(),
        lambda root: (root / "new").touch(),
    ],
)
def test_any_change_of_names_or_content_changes_the_digest(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = tree(tmp_path / "x")
    before = digest(root)
    change(root)
    assert digest(root) != before


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_flipped_bit_changes_the_digest(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    before = digest(path)
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(
        content[:place] + bytes([content[place] ^ 1 << data.draw(st.integers(0, 7))]) + content[place + 1 :]
    )
    assert digest(path) != before


def test_links_to_files_and_folders_count_by_what_they_point_to(tmp_path: Path) -> None:
    tree(tmp_path / "blobs")
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    shutil.copytree(tmp_path / "blobs", plain)
    linked.mkdir()
    (linked / "a.txt").symlink_to("../blobs/a.txt")
    (linked / "sub").symlink_to("../blobs/sub")
    assert digest(plain) == digest(linked)


def test_a_link_to_a_folder_that_holds_it_ends(tmp_path: Path) -> None:
    root = tree(tmp_path / "x")
    before = digest(root)
    (root / "sub" / "up").symlink_to("..")
    assert digest(root) == before


def test_names_that_are_not_utf8_have_a_digest(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff")).write_text("x")
    assert digest(tmp_path).startswith("sha256:")


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a.txt", "a-b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path)] == ["a-b", "a.txt", "a/z", "b"]


def test_a_single_file_is_digested_under_its_name(tmp_path: Path) -> None:
    tree(tmp_path / "x")
    assert list(file_records(tmp_path / "x" / "a.txt")) == ["a.txt"]


def test_a_folder_that_cannot_be_read_is_an_error_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user without the right; root has it always."""
    root, scandir = tree(tmp_path / "x"), os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        digest(root)


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_are_made_what_the_umask_asks_for(tmp_path: Path, umask: int, file_mode: int, folder_mode: int) -> None:
    root = tree(tmp_path / "x")
    (root / "a.txt").chmod(0o600)
    (root / "sub" / "b.bin").chmod(0o777)
    (root / "sub").chmod(0o500)
    outside = tmp_path / "outside"
    outside.touch(mode=0o640)
    (root / "link").symlink_to(outside)
    before = os.umask(umask)
    try:
        fsync_tree(root)
        assert os.umask(umask) == umask, "the umask itself is as before"
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (root / "a.txt", root / "sub" / "b.bin")} == {file_mode}
    assert {path.stat().st_mode & 0o777 for path in (root, root / "sub")} == {folder_mode}
    assert outside.stat().st_mode & 0o777 == 0o640


def test_json_replaces_the_old_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for value in ({"a": 1}, {"ü": ["数"]}):
        write_json(path, value)
        assert json.loads(path.read_text(encoding="utf-8")) == value
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_no_json_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"long": "x" * 10_000, "bad": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:  # a system without renameat2
        monkeypatch.setattr(artifacts.ctypes, "CDLL", lambda name: object())
    new, target = tree(tmp_path / "new"), tmp_path / "target"
    put_in_place(new, target)
    assert not new.exists()
    for text in ("second", "third"):
        new.mkdir(exist_ok=True)
        shutil.rmtree(new)
        tree(new)
        (new / "a.txt").write_text(text)
        old = (target / "a.txt").read_text()
        put_in_place(new, target)
        assert (target / "a.txt").read_text() == text
        assert (new / "a.txt").read_text() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "target"]
