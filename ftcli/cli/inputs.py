"""What a flag such as ``--model lora`` means: an output of the run, or what is at a path or reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftcli.core.config import nearest
from ftcli.core.errors import UsageError
from ftcli.core.rundir import Published, RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.pipeline.references import ID_PATTERN, StageOutput, external
from ftcli.pipeline.resolve import from_outside, from_published


def find(run: RunDir, option: str, text: str, kind: Kind, label: str) -> Artifact:
    """The ``kind`` that ``text`` names: ``stage.output`` of ``run``, a stage with one such output, or something outside the run.

    Raises `UsageError` beginning with ``option`` where it is none, or might be two.
    """
    item = None if kind is Kind.FUNCTION else stage_of(run, text)  # no stage makes one
    _, dot, output = text.partition(".")
    try:
        if item is not None and not dot and (only := _only_output(item, kind)):
            return from_published(item, only, kind, label)
        if item is not None and output in item.manifest["outputs"]:
            have = item.manifest["outputs"][output]["kind"]
            if have != kind:
                raise UsageError(f"{StageOutput(item.id, output)} is a {have}, a {kind} is needed")
            return from_published(item, output, kind, label)
        return from_outside(external(Path.cwd(), kind, text, _of_this_run(run, kind, text)).ref, kind, label)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", error.hint) from None


def stage_of(run: RunDir, text: str) -> Published | None:
    """The newest output of the stage that ``text`` begins with, if that is an id of ``run``."""
    id = text.partition(".")[0]
    return run.latest(id) if ID_PATTERN.match(id) else None


def newest(run: RunDir, kind: Kind, but: str = "") -> tuple[Published, str] | None:
    """The output that ended last of those that are a ``kind``, except of stage ``but``; None if there is none."""
    found = [pair for pair in _having(run, kind) if pair[0].id != but]
    return max(found, key=lambda pair: (pair[0].manifest["ended"], pair[0].id), default=None)


def _having(run: RunDir, kind: Kind) -> list[tuple[Published, str]]:
    return [
        (item, output)
        for item in run.all_latest()
        for output, record in item.manifest["outputs"].items()
        if record["kind"] == kind
    ]


def _of_this_run(run: RunDir, kind: Kind, text: str) -> str:
    """A hint for whoever wrote ``text``: the outputs of ``run`` that it might have meant."""
    having = _having(run, kind)
    if kind is Kind.FUNCTION:
        return "paths are relative to the current folder"
    if not having:
        return f"{run.root} holds no {kind}; name another run with --run"
    guess = nearest(text.partition(".")[0], [item.id for item, _ in having])
    return guess or f"or name an output of this run: {', '.join(f'{item.id}.{output}' for item, output in having)}"


def _only_output(item: Published, kind: Kind) -> str:
    """The one output of a stage that is a ``kind``, for a reference that is the stage's id alone; an empty string where it has
    none and the id is also a path."""
    outputs: Mapping[str, Any] = item.manifest["outputs"]
    fitting = [f"{item.id}.{output}" for output, record in outputs.items() if record["kind"] == kind]
    is_path = Path(item.id).exists()
    if fitting and is_path:
        raise UsageError(
            f"{item.id} is a stage of this run, and a file or folder here", f"write {fitting[0]} or ./{item.id}"
        )
    if len(fitting) > 1:
        raise UsageError(f"stage {item.id} has several outputs that are a {kind}", f"name one of {', '.join(fitting)}")
    if not fitting and not is_path:
        have = ", ".join(f"{item.id}.{output} is a {record['kind']}" for output, record in outputs.items())
        raise UsageError(f"stage {item.id} has no {kind} ({have})", "name a stage that makes one")
    return fitting[0].partition(".")[2] if fitting else ""
