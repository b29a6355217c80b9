"""What models said and what texts cost them, kept between evaluations under a key of everything that decides it.

A key names contents (of weights, tokenizer, prompt), never paths, so a model trained again into the same folder has other keys and
an unchanged base is never asked twice. The file is SQLite with a write-ahead log: several evaluations may use it at once, and a
process that is killed loses the batch it was writing. It must lie on a local disk. A cache saves time and is never needed: a file
that is damaged is moved aside, one that cannot be written is done without, and both are said.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FILE = "eval.sqlite"
MOST_BYTES = 1 << 30
KEPT_SHARE = 0.8
"""Of `MOST_BYTES`, what pruning leaves."""
ROW_BYTES = 200
"""What a row takes beside its value: the key twice, since an index has it too, and the time."""
WAIT_S = 60.0
"""How long to wait for another process to finish its write."""
AT_ONCE = 500
"""Keys in one question; SQLite took at most 999 for long."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def key_of(parts: Mapping[str, Any]) -> str:
    """The key of what ``parts``, JSON values, decide: the same whatever their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Cache:
    """JSON values by key, in the file ``path``. ``note`` is told, in words, of what went wrong.

    A file that has grown beyond ``most_bytes`` loses, when it is opened, the values that were not used for longest.
    """

    def __init__(
        self, path: Path, note: Callable[[str], None] = lambda text: None, most_bytes: int = MOST_BYTES
    ) -> None:
        self.path = path
        self._note = note
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path):  # SQLite does not wait its turn when a file gets its write-ahead log
                self._file = _opened(path)
        except sqlite3.DatabaseError as error:
            self._file = self._replaced(error)
        except OSError as error:
            self._file = self._without(error)
        self._tried(lambda file: _prune(file, most_bytes))

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of those of ``keys`` that are known, which count as used now."""
        return self._tried(lambda file: _find(file, keys))

    def put(self, values: Mapping[str, Any]) -> None:
        """Keep ``values``, all of them or, when the process is killed meanwhile, none."""
        now = time.time()
        rows = [(key, json.dumps(value), now) for key, value in values.items()]

        def write(file: sqlite3.Connection) -> None:
            with file:
                file.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", rows)

        self._tried(write)

    def close(self) -> None:
        self._file.close()

    def _tried(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work``; when the file does not allow it, once more with another."""
        try:
            return work(self._file)
        except sqlite3.DatabaseError as error:
            self._file.close()
            self._file = self._replaced(error)
            return work(self._file)

    def _replaced(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        """A new file in place of a damaged one, unless another process has made it meanwhile; else memory alone."""
        if not _is_damage(error):
            return self._without(error)
        try:
            with _alone(self.path):
                try:
                    return _checked(self.path)
                except sqlite3.DatabaseError as again:
                    if not _is_damage(again):
                        return self._without(again)
                    aside = _move_aside(self.path)
                    self._note(
                        f"{self.path} was damaged ({error}) and is now {aside.name}; its results are computed again"
                    )
                    return _opened(self.path)
        except (OSError, sqlite3.DatabaseError) as other:
            return self._without(other)

    def _without(self, error: Exception) -> sqlite3.Connection:
        self._note(f"{self.path} cannot be used ({error}); nothing is kept for the next evaluation")
        return _prepared(sqlite3.connect(":memory:"))


def _opened(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=WAIT_S)
    try:
        return _prepared(file)
    except BaseException:
        file.close()
        raise


def _prepared(file: sqlite3.Connection) -> sqlite3.Connection:
    file.execute("PRAGMA auto_vacuum = INCREMENTAL")  # pruning gives the disk its room back
    file.execute("PRAGMA journal_mode = WAL")
    file.execute("PRAGMA synchronous = NORMAL")
    file.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL, used REAL NOT NULL)")
    return file


def _checked(path: Path) -> sqlite3.Connection:
    """The file at ``path``, read through. Raises `sqlite3.DatabaseError` when it is damaged."""
    file = _opened(path)
    found = [str(row[0]) for row in file.execute("PRAGMA quick_check(1)")]
    if found == ["ok"]:
        return file
    file.close()
    damage = sqlite3.DatabaseError(found[0])
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise damage


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGED  # the low byte is the kind, above it stands the detail


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time decides whether ``path`` must go."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _move_aside(path: Path) -> Path:
    """Rename the file to a free name, with its log, which must not be applied to its successor."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    return aside


def _find(file: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with file:
        for start in range(0, len(keys), AT_ONCE):
            asked = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(asked))
            with closing(file.execute(f"SELECT key, value FROM kept WHERE key IN ({marks})", asked)) as rows:
                found |= dict(rows)
            file.execute(f"UPDATE kept SET used = ? WHERE key IN ({marks})", (time.time(), *asked))
    return {key: json.loads(value) for key, value in found.items()}


def _prune(file: sqlite3.Connection, most_bytes: int) -> None:
    if _size(file) <= most_bytes:
        return
    with file:
        file.execute(
            "DELETE FROM kept WHERE key IN (SELECT key FROM (SELECT key, SUM(LENGTH(CAST(value AS BLOB)) + ?) "
            "OVER (ORDER BY used DESC, key) AS above FROM kept) WHERE above > ?)",
            (ROW_BYTES, KEPT_SHARE * most_bytes),
        )
    file.executescript("PRAGMA incremental_vacuum")  # `execute` would take one step of it, that is one page


def _size(file: sqlite3.Connection) -> int:
    pages, size = (int(file.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size"))
    return pages * size
