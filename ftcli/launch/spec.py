"""The job file: all that a worker needs to know, as JSON."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftcli.core.errors import BY_EXIT_CODE, FtcliError
from ftcli.core.events import FACTS
from ftcli.core.stage import Artifact, Stage

RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    """One run of one stage. ``target`` is ``module:NAME`` of its `Stage`; ``processes`` share its work."""

    target: str
    config: Mapping[str, Any]
    inputs: Mapping[str, tuple[Artifact, ...]]
    out: Path
    scratch: Path
    processes: int = 1
    desk: Path | None = None
    """The run's human/desk.sqlite."""

    def stage(self) -> Stage[Any]:
        return load_stage(self.target)

    def of_rank(self, rank: int) -> Job:
        """This job as process ``rank`` does it: rank 0 as it stands, others in ``scratch/rank-<r>/``, with an ``out`` in
        it that nobody publishes."""
        own = self.scratch / f"rank-{rank}"
        return replace(self, out=own / "out", scratch=own) if rank else self

    def write(self) -> Path:
        """Write the job file to scratch, and remove what an earlier try said of itself."""
        for own in [self.of_rank(rank) for rank in range(self.processes)]:
            if own.out != self.out:
                shutil.rmtree(own.out, ignore_errors=True)
                own.out.mkdir(parents=True)
            for name in (RESULT, FACTS):
                (own.scratch / name).unlink(missing_ok=True)
        path = self.scratch / "job.json"
        value = {
            "target": self.target,
            "config": dict(self.config),
            "inputs": {name: [item.to_json() for item in items] for name, items in self.inputs.items()},
            "out": str(self.out),
            "scratch": str(self.scratch),
            "processes": self.processes,
            "desk": str(self.desk) if self.desk else None,
        }
        path.write_text(json.dumps(value, indent=2), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Job:
        value = json.loads(path.read_text(encoding="utf-8"))
        inputs = {name: tuple(Artifact.from_json(item) for item in items) for name, items in value["inputs"].items()}
        folders = Path(value["out"]), Path(value["scratch"])
        desk = Path(value["desk"]) if value["desk"] else None
        return cls(value["target"], value["config"], inputs, *folders, value["processes"], desk)


@dataclass(frozen=True)
class Result:
    """How a worker ended: an exit code of `ftcli.core.errors`, a message and hint for people, and the stage's facts."""

    exit_code: int
    message: str = ""
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def write(self, scratch: Path) -> None:
        value = {"exit_code": self.exit_code, "message": self.message, "hint": self.hint, "facts": dict(self.facts)}
        (scratch / RESULT).write_text(json.dumps(value), encoding="utf-8")

    @classmethod
    def read(cls, scratch: Path) -> Result | None:
        """What the worker left, or None if it died without a word."""
        try:
            return cls(**json.loads((scratch / RESULT).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def raise_for_failure(self) -> None:
        """Raise the error that the worker raised, message, hint and exit code unchanged."""
        if self.exit_code != 0:
            raise BY_EXIT_CODE.get(self.exit_code, FtcliError)(self.message, self.hint)


def load_stage(target: str) -> Stage[Any]:
    module, _, name = target.partition(":")
    stage: Stage[Any] = getattr(importlib.import_module(module), name)
    return stage
