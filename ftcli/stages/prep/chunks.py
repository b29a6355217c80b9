"""What the first pass leaves on disk: chunks of cleaned rows, and what the later passes need to know of each row.

A chunk is a folder, written beside its place and renamed, so one that exists is whole: a run that was killed goes on with
the chunks that are missing, and several processes may write chunks of one source at a time. Rows stay on disk as JSON
lines; in memory each has one entry of `COLUMNS`, which is what lets a source be larger than memory.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ftcli.data.consistency import Consistency
from ftcli.data.records import MALFORMED, Reject
from ftcli.data.rows import Row

CHUNK_ROWS = 4096
ID_DIGITS = 24
"""Hexadecimal digits of a row's id, so 96 bits."""
OPEN_CHUNKS = 512
"""Files held open at a time; some systems allow a process no more than 1,024."""
NEAR_BANDS = 10
NEAR_ROWS = 6
"""Bands of the signature for removal: a pair at similarity .9 shares one with probability .9995, at .8 with .95."""

COLUMNS = np.dtype(
    [
        ("offset", "u8"),
        ("size", "u4"),
        ("source", "u2"),
        ("turns", "u1"),
        ("tools", "?"),
        ("label", "?"),
        ("synthetic", "?"),
        ("language", "S3"),
        ("exact", "u8", 2),
        ("content", "u8"),
        ("prompt", "u8"),
        ("opening", "u8"),
        ("answer", "u8"),
        ("guard", "u8"),
        ("group", "u8"),
        ("stratum", "u8"),
        ("prompt_length", "u4"),
        ("answer_length", "u4"),
        ("total_length", "u4"),
        ("near", "u4", NEAR_BANDS),
    ]
)
"""One row. ``offset`` and ``size`` find its JSON; ``label`` says that its answer is short enough for one,
``synthetic`` that a model wrote it (`ftcli.data.synthetic.is_synthetic`); ``exact`` to ``guard``
are digests (`ftcli.data.dedup`), ``group`` and ``stratum`` those of the values of group_by and stratify_by (0 without). Lengths
are in tokens, or in characters where no model was given, and ``answer_length`` counts what a loss would. ``near`` are keys of
bands."""


@dataclass
class Tally:
    """Counts of one chunk, or of many: rows read and refused, by step, reason and file; changes and flags, in rows."""

    rows_in: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By ``step/reason``."""
    file_rows: Counter[str] = field(default_factory=Counter)
    file_refused: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    too_long: int = 0
    tokens_lost: int = 0
    first_malformed: str = ""

    def refuse(self, step: str, item: Reject) -> None:
        self.refused[f"{step}/{item.reason}"] += 1
        self.file_refused[item.file] += 1

    @property
    def reasons(self) -> Counter[str]:
        """Refused rows by reason, over all steps."""
        found: Counter[str] = Counter()
        for key, count in self.refused.items():
            found[key.partition("/")[2]] += count
        return found

    @property
    def malformed(self) -> int:
        return sum(count for reason, count in self.reasons.items() if reason in MALFORMED)

    def add(self, other: Tally) -> None:
        """Add the counts of a later part of the stream."""
        self.rows_in += other.rows_in
        self.too_long += other.too_long
        self.tokens_lost += other.tokens_lost
        self.first_malformed = self.first_malformed or other.first_malformed
        for name in ("refused", "file_rows", "file_refused", "changed", "flags"):
            getattr(self, name).update(getattr(other, name))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        return cls(**{name: Counter(value) if isinstance(value, dict) else value for name, value in data.items()})


@dataclass
class Chunk:
    """The outcome of up to `CHUNK_ROWS` records: JSON lines of rows, rejects and flags, the columns, and the counts."""

    rows: list[bytes]
    rejects: list[dict[str, Any]]
    flags: list[dict[str, Any]]
    columns: np.ndarray
    tally: Tally
    style: Consistency


def row_id(exact: int) -> str:
    """The id of a row: the first bits of its exact key."""
    return f"{exact:032x}"[:ID_DIGITS]


def chunk_name(source: int, number: int) -> str:
    return f"{source:03d}-{number:08d}"


def write_chunk(folder: Path, name: str, chunk: Chunk, notes: Sequence[str]) -> None:
    """Write ``chunk`` as ``folder/name`` in one rename. ``notes`` is what reading had to say up to here."""
    temporary = folder / f".{name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / "rows.jsonl").write_bytes(b"".join(chunk.rows))
    for part in ("rejects", "flags"):
        lines = b"".join(orjson.dumps(item) + b"\n" for item in getattr(chunk, part))
        (temporary / f"{part}.jsonl").write_bytes(lines)
    np.save(temporary / "columns.npy", chunk.columns)
    counts = {"tally": vars(chunk.tally), "style": _style_json(chunk.style), "notes": list(notes)}
    (temporary / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
    os.rename(temporary, folder / name)


def _style_json(style: Consistency) -> dict[str, Any]:
    """JSON has no tuples as keys, so each stands beside its values."""
    return {
        "answers": style.answers,
        "seen": [[classes, count, style.places[classes]] for classes, count in style.counts.items()],
    }


def _style_from(data: dict[str, Any]) -> Consistency:
    return Consistency(
        data["answers"],
        Counter({tuple(classes): count for classes, count, _ in data["seen"]}),
        {tuple(classes): [(file, line) for file, line in places] for classes, _, places in data["seen"]},
    )


class Store:
    """All chunks of a first pass, in input order: ``columns`` [n] in memory, rows by index from disk."""

    def __init__(self, folder: Path) -> None:
        self.folders = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        parts = [np.load(path / "columns.npy") for path in self.folders]
        self.columns: np.ndarray = np.concatenate(parts) if parts else np.zeros(0, COLUMNS)
        self._first = np.cumsum([0, *map(len, parts)])  # index of each chunk's first row, and the end
        self._maps: dict[int, mmap.mmap] = {}
        self.tally = Tally()
        self.style = Consistency()
        self.notes: list[str] = []
        self.source_rows: Counter[int] = Counter()
        for notes in sorted(folder.glob(".notes-*")):
            self.notes += json.loads(notes.read_text(encoding="utf-8"))
        for path in self.folders:
            counts = json.loads((path / "counts.json").read_text(encoding="utf-8"))
            self.tally.add(Tally.from_json(counts["tally"]))
            self.style.merge(_style_from(counts["style"]))
            self.notes += counts["notes"]
            self.source_rows[int(path.name.partition("-")[0])] += counts["tally"]["rows_in"]
        self.notes = sorted(set(self.notes))  # which process saw what decides nothing

    def __len__(self) -> int:
        return len(self.columns)

    def line(self, index: int) -> bytes:
        """The JSON of row ``index``, without line end."""
        return next(self.lines(np.array([index])))

    def row(self, index: int) -> Row:
        return self.rows(np.array([index]))[0]

    def rows(self, indices: NDArray[np.int64]) -> list[Row]:
        return [orjson.loads(line) for line in self.lines(indices)]

    def lines(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """The JSON of these rows, without line ends."""
        chunks = (np.searchsorted(self._first, indices, side="right") - 1).tolist()
        starts = self.columns["offset"][indices].tolist()
        sizes = self.columns["size"][indices].tolist()
        for chunk, start, size in zip(chunks, starts, sizes, strict=True):
            content = self._maps.get(chunk) or self._open(chunk)
            yield content[start : start + size]

    def _open(self, chunk: int) -> mmap.mmap:
        if len(self._maps) >= OPEN_CHUNKS:
            self.close()
        with (self.folders[chunk] / "rows.jsonl").open("rb") as file:
            self._maps[chunk] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[chunk]

    def lines_of(self, part: str) -> Iterator[bytes]:
        """The lines of rejects.jsonl or flags.jsonl of all chunks, in input order."""
        for path in self.folders:
            with (path / f"{part}.jsonl").open("rb") as file:
                yield from file

    def close(self) -> None:
        for content in self._maps.values():
            content.close()
        self._maps.clear()


def columns_of(entries: Sequence[tuple[Any, ...]]) -> np.ndarray:
    return np.array(list(entries), COLUMNS)
