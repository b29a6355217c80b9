"""What a running stage tells the world: metrics (kept in metrics.jsonl), progress and notes (shown, not kept), and a summary.

``metrics.jsonl`` is one JSON object a line, ``{"step": 3, "train/loss": 1.25, "perf/tokens_per_s": 310.2}``. Names are
``group/name``. Everything outside the group ``perf`` is equal when a run is repeated on the same machine; clocks and memory
belong to ``perf``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import write_json

FACTS = "facts.json"
Event = dict[str, Any]
Sink = Callable[[Event], None]


def facts_so_far(folder: Path) -> dict[str, Any]:
    """What a stage had summarized in ``folder`` when it was killed."""
    try:
        return dict(json.loads((folder / FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _silent(event: Event) -> None:
    """The sink of a stage that nobody watches."""


class Events:
    """Writes metrics.jsonl in ``folder`` and hands every event to ``sink`` (the controller's pipe, or a test)."""

    def __init__(self, folder: Path, sink: Sink = _silent) -> None:
        self.path = folder / "metrics.jsonl"
        self._sink = sink
        self._summary: dict[str, Any] = {}

    def metrics(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Append one line to metrics.jsonl. ``step`` counts the stage's own unit of work (optimizer steps, rollouts)."""
        record = {"step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._sink({"event": "metrics", **record})

    def rewind(self, step: int) -> None:
        """Drop the lines after ``step``: a resumed run repeats them. A torn last line goes too."""
        if not self.path.exists():
            return
        kept = []
        temporary = self.path.with_suffix(".tmp")
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError, TypeError):
                break
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, self.path)  # a crash here must not lose the lines that are kept

    def series(self, name: str) -> list[tuple[int, float]]:
        """``(step, value)`` of one metric, from metrics.jsonl."""
        if not self.path.exists():
            return []
        records = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [(record["step"], record[name]) for record in records if record.get(name) is not None]

    def progress(self, task: str, done: int, total: int, **shown: float | int | str | None) -> None:
        """Say how far ``task`` is; ``shown`` goes beside the bar, e.g. ``loss=1.2, tokens_per_s=310``."""
        self._sink({"event": "progress", "task": task, "done": done, "total": total, "shown": shown})

    def note(self, text: str) -> None:
        """Say one line to people, e.g. a choice that was made for them and why."""
        self._sink({"event": "note", "text": text})

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Add to the stage's own record in stage.json (``facts``): final metrics, seconds, peak memory, counts.

        Kept in the folder too, for whoever asks after the worker was killed (`facts_so_far`).
        """
        self._summary.update(values)
        write_json(self.path.with_name(FACTS), self._summary)

    @property
    def summary(self) -> dict[str, Any]:
        return dict(self._summary)
