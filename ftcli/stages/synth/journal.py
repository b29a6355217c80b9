"""What was asked and answered, one line each, on disk before anything is done with it; a run that goes on asks none of it again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from ftcli.data.rows import Message


@dataclass(frozen=True)
class Question:
    """``key`` names it: a digest of everything that decides the answer, its number included, so equal words may be asked twice."""

    key: str
    messages: list[Message]


@dataclass(frozen=True)
class Answer:
    """``tokens`` of prompt and reply, None where the teacher does not count. ``refused`` says why there is no reply,
    ``left_out`` which settings of the sampling the server did not take."""

    text: str
    finish_reason: str = ""
    tokens: int | None = None
    refused: str = ""
    left_out: tuple[str, ...] = ()


def key_of(parts: Iterable[Any]) -> str:
    text = json.dumps(list(parts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """The file ``path``, only ever appended to; a last line that was torn is cut off when it is opened. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        self._lock = Lock()
        if path.exists():
            self._read()

    @property
    def tokens(self) -> int:
        """All tokens so far, as far as they were counted."""
        return sum(answer.tokens or 0 for answer in self.answers.values())

    @property
    def is_counted(self) -> bool:
        return all(answer.tokens is not None or answer.refused for answer in self.answers.values())

    def add(self, question: Question, answer: Answer) -> None:
        """Durable when it returns."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"key": question.key, "messages": question.messages, **asdict(answer), "at": at}
        line = json.dumps(record) + "\n"  # in ASCII: a reply may have lone surrogates
        with self._lock, self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
            self.answers[question.key] = answer

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    answer = Answer(**{field.name: record[field.name] for field in fields(Answer)})
                except (ValueError, LookupError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                self.answers[record["key"]] = replace(answer, left_out=tuple(answer.left_out))
                whole += len(line)
        os.truncate(self.path, whole)
