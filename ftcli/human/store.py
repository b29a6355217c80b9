"""The record of what people said: one SQLite file that is only ever appended to.

What `Store.judge` has returned from survives a crash of the process or the machine (write-ahead log, fsync on each
commit). Nothing is changed or deleted, which triggers hold: a second judgement of a showing and an undo are rows of their
own, and the last row of a showing decides. Several processes may work on one file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ftcli.core.errors import BadData, Corrupt, DiskError, UsageError, disk_errors
from ftcli.human.tasks import (
    MOST_CANDIDATES,
    Candidate,
    Item,
    Judgement,
    Task,
    check,
    item_from,
    judgement_from,
    task_from,
    to_json,
)

__all__ = ["Candidate", "Item", "Judgement", "Store", "Task"]

WAIT_S = 30.0
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE tasks (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, at TEXT NOT NULL)",
        "CREATE TABLE items (task TEXT NOT NULL REFERENCES tasks (id), number INTEGER NOT NULL, id TEXT NOT NULL,"
        " content TEXT NOT NULL, PRIMARY KEY (task, id))",
        "CREATE TABLE log (number INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, item TEXT NOT NULL, grader TEXT NOT NULL,"
        " is_repeat INTEGER NOT NULL CHECK (is_repeat IN (0, 1)), content TEXT, at TEXT NOT NULL,"
        " FOREIGN KEY (task, item) REFERENCES items (task, id))",
        "CREATE TABLE revealed (task TEXT NOT NULL REFERENCES tasks (id), grader TEXT NOT NULL, at TEXT NOT NULL,"
        " PRIMARY KEY (task, grader))",
        "CREATE INDEX showings ON log (task, grader, item, is_repeat, number)",
        *(
            f"CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'append-only'); END"
            for table in ("tasks", "items", "log", "revealed")
            for verb in ("UPDATE", "DELETE")
        ),
    ),
)
"""Statements that bring a file from version n to n + 1. A list that only grows: files of every version are out there.

``log.content`` is a judgement, or NULL where a grader took back the showing's judgement."""

STANDING = (
    "SELECT content FROM log WHERE number IN (SELECT max(number) FROM log WHERE task = ? GROUP BY grader, item, is_repeat)"
    " AND content IS NOT NULL ORDER BY number"
)
NEWEST = (
    "SELECT item, is_repeat, content FROM log WHERE number IN"
    " (SELECT max(number) FROM log WHERE task = ? AND grader = ? GROUP BY item, is_repeat)"
    " AND content IS NOT NULL ORDER BY number DESC"
)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Store:
    """The tasks of one run and what graders said of them. One object may be used by several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. Raises `UsageError` if a newer ftcli wrote it, `Corrupt` if it is no such file."""
        self.path = path
        self._lock = threading.RLock()
        self._tasks: dict[str, Task] = {}
        self._items: dict[str, dict[str, Item]] = {}
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._database = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "foreign_keys = ON"):
                self._database.execute(f"PRAGMA {pragma}")
        with self._writing() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise UsageError(
                    f"{path}: version {version}, this ftcli knows {len(MIGRATIONS)}",
                    "use the ftcli version that wrote it",
                )
            for statement in (statement for step in MIGRATIONS[version:] for statement in step):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        self._database.close()

    # ---- what is asked

    def publish(self, task: Task, items: Sequence[Item]) -> None:
        """Add a task. Doing so again with the same content changes nothing; with other content it raises `UsageError`."""
        _check_items(task, items)
        with self._writing() as database:
            known = database.execute("SELECT content FROM tasks WHERE id = ?", (task.id,)).fetchone()
            contents = [to_json(item) for item in items]
            if known is not None:
                old = [
                    row
                    for (row,) in database.execute(
                        "SELECT content FROM items WHERE task = ? ORDER BY number", (task.id,)
                    )
                ]
                if known[0] != to_json(task) or old != contents:
                    raise UsageError(
                        f"{self.path}: task {task.id} is there with other items or settings",
                        f"move {self.path} away, or use another run directory",
                    )
                return
            database.execute("INSERT INTO tasks (id, content, at) VALUES (?, ?, ?)", (task.id, to_json(task), now()))
            rows = [
                (task.id, number, item.id, content)
                for number, (item, content) in enumerate(zip(items, contents, strict=True))
            ]
            database.executemany("INSERT INTO items (task, number, id, content) VALUES (?, ?, ?, ?)", rows)

    def tasks(self) -> list[Task]:
        """All tasks, the oldest first."""
        with self._reading() as database:
            return [
                task_from(json.loads(row)) for (row,) in database.execute("SELECT content FROM tasks ORDER BY number")
            ]

    def items(self, task: str) -> list[Item]:
        """The items of a task, as published. Raises `UsageError` if there is no such task."""
        return list(self._content(task)[1].values())

    def item(self, task: str, id: str) -> Item:
        """Raises `UsageError` if there is no such task, `BadData` if it has no such item."""
        items = self._content(task)[1]
        if id not in items:
            raise BadData(f"no item {id} in task {task}")
        return items[id]

    def task(self, id: str) -> Task:
        """Raises `UsageError` if there is no such task."""
        return self._content(id)[0]

    def _content(self, task: str) -> tuple[Task, dict[str, Item]]:
        """A task and its items by id: read once, since they never change."""
        with self._reading() as database:
            if task not in self._items:
                row = database.execute("SELECT content FROM tasks WHERE id = ?", (task,)).fetchone()
                if row is None:
                    raise UsageError(f"{self.path}: no task {task}")
                rows = database.execute("SELECT content FROM items WHERE task = ? ORDER BY number", (task,))
                self._items[task] = {item.id: item for (one,) in rows if (item := item_from(json.loads(one)))}
                self._tasks[task] = task_from(json.loads(row[0]))
            return self._tasks[task], self._items[task]

    # ---- what people say

    def check(self, judgement: Judgement) -> None:
        """Raise `BadData` or `UsageError` if the store could not take ``judgement``."""
        check(judgement, self.task(judgement.task), self.item(judgement.task, judgement.item))

    def judge(self, judgement: Judgement) -> int:
        """Keep ``judgement``, which is on disk when this returns its number. It replaces what the grader said of that showing."""
        return self.judge_all([judgement])[0]

    def judge_all(self, judgements: Sequence[Judgement]) -> list[int]:
        """Keep all of them, or none if one is refused with `BadData`."""
        for one in judgements:
            self.check(one)
        with self._writing() as database:
            return [_append(database, one.task, one.item, one.grader, one.is_repeat, one) for one in judgements]

    def undo(self, task: str, grader: str) -> Judgement | None:
        """Take back the newest judgement of ``grader`` that stands, and return it; None if there is none."""
        self._content(task)
        with self._writing() as database:
            row = database.execute(NEWEST + " LIMIT 1", (task, grader)).fetchone()
            if row is None:
                return None
            _append(database, task, row[0], grader, bool(row[1]), None)
            return judgement_from(json.loads(row[2]))

    def judgements(self, task: str) -> list[Judgement]:
        """Those that stand, in the order in which they were given."""
        self._content(task)
        with self._reading() as database:
            return [judgement_from(json.loads(row)) for (row,) in database.execute(STANDING, (task,))]

    def judged(self, task: str, grader: str) -> dict[tuple[str, bool], Judgement]:
        """What stands of one grader, by item and whether it is a repeat; the newest first."""
        with self._reading() as database:
            rows = database.execute(NEWEST, (task, grader))
            return {(item, bool(repeat)): judgement_from(json.loads(content)) for item, repeat, content in rows}

    def reveal(self, task: str, grader: str) -> None:
        """Keep that ``grader`` has been told which model gave which answer."""
        with self._writing() as database:
            database.execute("INSERT OR IGNORE INTO revealed VALUES (?, ?, ?)", (task, grader, now()))

    def is_revealed(self, task: str, grader: str) -> bool:
        with self._reading() as database:
            found = database.execute("SELECT 1 FROM revealed WHERE task = ? AND grader = ?", (task, grader))
            return found.fetchone() is not None

    # ---- the file

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            yield self._database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that has the file to itself from its first statement, and ends on disk or not at all."""
        with self._lock, self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise DiskError(
                f"{self.path}: {error}", "is the disk full, read-only, or the file held by another program?"
            ) from None
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"{self.path}: {error}", f"move {self.path} away and bring a copy back") from None


def _append(
    database: sqlite3.Connection, task: str, item: str, grader: str, is_repeat: bool, judgement: Judgement | None
) -> int:
    at = (judgement.at if judgement else "") or now()
    content = None if judgement is None else to_json(replace(judgement, at=at))
    cursor = database.execute(
        "INSERT INTO log (task, item, grader, is_repeat, content, at) VALUES (?, ?, ?, ?, ?, ?)",
        (task, item, grader, int(is_repeat), content, at),
    )
    return int(cursor.lastrowid or 0)


def _check_items(task: Task, items: Sequence[Item]) -> None:
    """Raises `ValueError` for items that a task of this kind cannot have: a mistake of the caller, not of a user."""
    if len({item.id for item in items}) < len(items):
        raise ValueError(f"task {task.id}: two items have one id")
    for item in items:
        if task.kind == "rank" and not (item.row is None and 2 <= len(item.candidates) <= MOST_CANDIDATES):
            raise ValueError(f"task {task.id}: item {item.id}: 2 to {MOST_CANDIDATES} candidates and no row are needed")
        if task.kind == "review" and not (item.row is not None and not item.candidates):
            raise ValueError(f"task {task.id}: item {item.id}: a row and no candidates are needed")
