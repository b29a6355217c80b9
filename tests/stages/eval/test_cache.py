from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ftcli.stages.eval import cache as module
from ftcli.stages.eval.cache import Cache, key_of

WRITER = """
import sys
from pathlib import Path
from ftcli.stages.eval.cache import Cache
cache = Cache(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    cache.put({f"{sys.argv[2]}-{number}-{part}": [number, "x" * 500] for part in range(20)})
    print(number, flush=True)
"""


def start_writer(path: Path, name: str, batches: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    values = {"a": [1.0000000000000002, 3], "b": {"ids": [1, 2], "text": "Grüße \ud800 🙂"}, "c": None}
    cache = Cache(tmp_path / "new" / "eval.sqlite")
    cache.put(values)
    cache.close()
    assert Cache(tmp_path / "new" / "eval.sqlite").find(["a", "b", "c", "d"]) == values


def test_more_keys_than_sqlite_takes_at_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "eval.sqlite")
    values = {str(number): number for number in range(2345)}
    cache.put(values)
    assert cache.find(list(values)) == values
    assert cache.find([]) == {}


def test_a_key_is_the_digest_of_canonical_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5],"b":"x"}').hexdigest()
    assert key_of({"b": "x", "a": [1, 2.5]}) == key_of({"a": [1, 2.5], "b": "x"}) == expected


def test_the_longest_unused_values_go_when_the_file_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "eval.sqlite"
    cache = Cache(path)
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "time", lambda: float(next(clock)))
    for number in range(100):
        cache.put({f"k{number}": "x" * 10_000})
    assert cache.find(["k0"]) == {"k0": "x" * 10_000}, "used last"
    cache.close()
    Cache(path, most_bytes=500_000).close()
    assert path.stat().st_size <= 500_000
    left = list(Cache(path).find([f"k{number}" for number in range(100)]))
    assert left[0] == "k0"
    assert 30 <= len(left) < 50
    assert left[1:] == [f"k{number}" for number in range(101 - len(left), 100)]


def test_nothing_goes_while_there_is_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "eval.sqlite")
    cache.put({"a": 1})
    cache.close()
    assert Cache(tmp_path / "eval.sqlite").find(["a"]) == {"a": 1}


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "eval.sqlite"
    writers = [start_writer(path, name, 30) for name in ("one", "two")]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    keys = [f"{name}-{number}-{part}" for name in ("one", "two") for number in range(30) for part in range(20)]
    assert len(Cache(path).find(keys)) == 1200


def test_a_killed_writer_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "eval.sqlite"
    Cache(path).put({"mine": 1})
    writer = start_writer(path, "killed", 100_000)
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 5:
        pass
    writer.send_signal(signal.SIGKILL)
    told = [int(line) for line in writer.stdout.read().split()]
    writer.wait(timeout=60)
    notes: list[str] = []
    cache = Cache(path, notes.append)
    done = max([5, *told])
    keys = [f"killed-{number}-{part}" for number in range(done + 1) for part in range(20)]
    assert len(cache.find(["mine", *keys])) == len(keys) + 1
    last = cache.find([f"killed-{done + 1}-{part}" for part in range(20)])
    assert len(last) in (0, 20), "a batch is there as a whole or not at all"
    assert notes == []


def overwrite_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (path.stat().st_size - 4096))


def overwrite_all(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


@pytest.mark.parametrize("damage", [overwrite_pages, overwrite_all])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "eval.sqlite"
    cache = Cache(path)
    cache.put({f"k{number}": "x" * 1000 for number in range(200)})
    cache.close()
    damage(path)  # type: ignore[operator]
    notes: list[str] = []
    cache = Cache(path, notes.append)
    assert cache.find(["k1"]) == {}
    cache.put({"k1": "new"})
    cache.close()
    assert [text.partition(" was damaged")[0] for text in notes] == [str(path)]
    assert "eval.sqlite.damaged-1" in notes[0]
    assert (tmp_path / "eval.sqlite.damaged-1").is_file()
    assert Cache(path, notes.append).find(["k1"]) == {"k1": "new"}
    assert len(notes) == 1


def test_a_file_damaged_while_it_is_open_is_moved_aside_once(tmp_path: Path) -> None:
    """Two evaluations have it open; the second to notice finds the first one's new file and uses it."""
    path = tmp_path / "eval.sqlite"
    first = Cache(path)
    first.put({f"k{number}": "x" * 1000 for number in range(200)})
    first.close()
    notes: list[str] = []
    first, second = Cache(path, notes.append), Cache(path, notes.append)
    overwrite_pages(path)
    for cache in (first, second):
        assert cache.find(["k1", "k150"]) == {}
        cache.put({str(id(cache)): 1})
    assert len(notes) == 1
    assert second.find([str(id(first)), str(id(second))]) == {str(id(first)): 1, str(id(second)): 1}


def test_a_place_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    notes: list[str] = []
    cache = Cache(tmp_path / "file" / "eval.sqlite", notes.append)
    cache.put({"a": 1})
    assert cache.find(["a"]) == {"a": 1}
    assert len(notes) == 1
    assert "cannot be used" in notes[0]


def test_a_file_of_another_making_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "eval.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE kept (something INTEGER)")
    other.close()
    notes: list[str] = []
    cache = Cache(path, notes.append)
    cache.put({"a": 1})
    assert cache.find(["a"]) == {"a": 1}
    assert len(notes) == 1
    assert "cannot be used" in notes[0]
