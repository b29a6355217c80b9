"""The stage contract: a stage is data (name, config, inputs, outputs, version) and one function ``run(ctx)``.

The controller fills a `Context` and a worker calls ``stage.run(ctx)``; a stage knows nothing else of the run directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from ftcli.core.config import StageConfig
from ftcli.core.errors import UsageError
from ftcli.core.events import Events
from ftcli.core.stop import Stop

C = TypeVar("C", bound=StageConfig)
C_co = TypeVar("C_co", bound=StageConfig, covariant=True)


class Kind(StrEnum):
    """What an artifact is; an input accepts one kind."""

    SOURCE = "source"
    """Raw rows: a file, a folder, ``hf:org/name`` or ``pydoc:package``."""
    DATA = "data"
    """A folder with train.jsonl, validation.jsonl and test.jsonl of canonical rows (`ftcli.data.rows`)."""
    MODEL = "model"
    """A Hugging Face model folder, or a PEFT adapter folder together with its base."""
    SAMPLES = "samples"
    """A folder with samples.jsonl: prompts and a model's answers."""
    REWARD = "reward"
    """A reward model: PEFT adapter, scalar head and reward_stats.json."""
    REPORT = "report"
    """A folder with report.html, its short form summary.txt, and the figures it shows."""
    FUNCTION = "function"
    """A Python function, ``FILE.py:NAME``: the artifact's path is the file, and its ref ends with ``:NAME``."""


@dataclass(frozen=True)
class Input:
    """One named input of a stage. ``many`` inputs take a list, or a mapping from label to reference.

    ``unless`` names another input of the stage that can take this one's place: with that one given, this is optional.
    """

    kind: Kind
    help: str
    required: bool = True
    many: bool = False
    unless: str = ""

    def is_needed(self, given: Collection[str]) -> bool:
        """Whether the stage cannot run without this input, where the inputs named ``given`` are there."""
        return self.required and self.unless not in given


@dataclass(frozen=True)
class Artifact:
    """An input that was found and digested. ``base`` is the model that an adapter belongs to.

    ``ref`` is what the user wrote, with hub ids pinned to a commit. ``facts`` repeats what the producing stage recorded
    of its own making (seconds, peak memory, trainable share); they are no part of the digest. Nor is ``made``: for an
    output of a run directory, what is worth telling of its making (`ftcli.pipeline.resolve.making`); else empty.
    """

    kind: Kind
    ref: str
    path: Path
    digest: str
    label: str = ""
    base: Artifact | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": str(self.kind),
            "ref": self.ref,
            "path": str(self.path),
            "digest": self.digest,
            "label": self.label,
            "base": self.base.to_json() if self.base else None,
            "facts": dict(self.facts),
            "made": dict(self.made),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artifact:
        base = data["base"]
        return cls(
            kind=Kind(data["kind"]),
            ref=data["ref"],
            path=Path(data["path"]),
            digest=data["digest"],
            label=data["label"],
            base=cls.from_json(base) if base else None,
            facts=data["facts"],
            made=data["made"],
        )


@dataclass(frozen=True)
class Context(Generic[C_co]):
    """All that a stage may touch. It fills ``out``; ``scratch`` survives a crash, so a resume starts there."""

    config: C_co
    inputs: Mapping[str, tuple[Artifact, ...]]
    out: Path
    scratch: Path
    events: Events
    stop: Stop = field(default_factory=Stop)
    """A stage that is ``stoppable`` looks at it between its steps, and raises `Stopped` after saving."""
    rank: int = 0
    """Which of the processes that share the work this is. Only what rank 0 writes to ``out`` is published, and only its
    events are heard; the others have their own ``out`` and ``scratch``, which nobody reads."""
    world_size: int = 1
    desk: Path | None = None
    """The run's ``human/desk.sqlite``, where stages that need people put their questions and find the answers
    (`ftcli.human.store`); None outside a run directory. The file need not be there yet."""

    @property
    def shared_scratch(self) -> Path:
        """Rank 0's scratch, which the others read a checkpoint from and write nothing to."""
        return self.scratch if self.rank == 0 else self.scratch.parent

    def one(self, name: str) -> Artifact:
        """The single artifact of a required input."""
        return self.inputs[name][0]

    def maybe(self, name: str) -> Artifact | None:
        """The artifact of an optional input, or None."""
        found = self.inputs.get(name, ())
        return found[0] if found else None

    def many(self, name: str) -> tuple[Artifact, ...]:
        return self.inputs.get(name, ())

    def output(self, name: str) -> Path:
        """The folder of a declared output, created."""
        path = self.out / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Stage(Generic[C]):
    """A step of the pipeline. Each output is the folder ``<published>/<output name>/``."""

    name: str
    config: type[C]
    inputs: Mapping[str, Input]
    outputs: Mapping[str, Kind]
    run: Callable[[Context[C]], None]
    version: int = 1
    """Bump when the same config and inputs would now give another result."""
    example: str = ""
    """One command line for ``--help``."""
    module: str = ""
    """What `run` imports, with all that this takes; a process that will run several stages imports it ahead."""
    stoppable: bool = False
    """Whether ``run`` looks at ``ctx.stop``; if not, a signal ends it wherever it is."""
    parallel: bool = False
    """Whether several processes of one machine can share its work (``ctx.rank`` of ``ctx.world_size``), for the same
    result; the flag ``--processes`` and ``launch:`` in recipes ask for it."""
    leaner: Callable[[C, Mapping[str, Any]], tuple[C, str] | None] | None = None
    """After memory ran out: from the settings and facts so far, settings that need less and give the same result, with what
    they change in words; None if there are none left."""
    inspect: Callable[[Context[C]], str] | None = None
    """Says what it sees in the inputs, without writing anything: the flag ``--inspect``."""
    score: Callable[[Artifact, Iterable[bytes], str, Callable[[str], None]], Iterator[dict[str, Any]]] | None = None
    """Scores the JSON lines of a file, with what the stage makes as its first output: the flag ``--score``. Given that artifact,
    the lines, the file's name for errors, and what says things to a person, it gives each line's object with its scores."""
    plan: Callable[[str], str] | None = None
    """How much data would show an effect of a given size, in words, without any inputs: the flag ``--power``."""

    def __post_init__(self) -> None:
        clash = set(self.inputs) & set(self.config.model_fields)
        if clash:
            raise UsageError(f"stage {self.name}: {', '.join(sorted(clash))} is an input and a setting")
        for name, spec in self.inputs.items():
            if spec.unless and spec.unless not in self.inputs:
                raise UsageError(
                    f"stage {self.name}: {name} is needed unless {spec.unless} is given, which is no input"
                )
