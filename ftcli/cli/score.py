"""The flag --score: the JSON lines of a file with scores, by what a stage made."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from ftcli.cli.inputs import find
from ftcli.core.console import Console
from ftcli.core.errors import UsageError
from ftcli.core.rundir import RunDir
from ftcli.core.stage import Stage
from ftcli.launch.environment import ENVIRONMENT

OWN = ("run_", "id_", "score_", "scorer_")


def print_scores(run: RunDir, id: str, stage: Stage[Any], values: Mapping[str, Any]) -> None:
    """Score the file ``values["score_"]`` with the first output of the stage ``id``, or with ``values["scorer_"]``.

    Raises `UsageError` where there is no such output or file, or other options are given: there is nothing that they would do.
    """
    if stage.score is None:
        raise ValueError(f"{stage.name} has nothing to score with")
    others = given_options(stage, values, but=OWN)
    if others:
        raise UsageError(f"--score takes none of {others}: it scores with what is made", "leave them out")
    output, kind = next(iter(stage.outputs.items()))
    if values["scorer_"] is not None:
        artifact = find(run, f"--{output}", values["scorer_"], kind, "")
    elif run.latest(id) is not None:
        artifact = find(run, "--id", f"{id}.{output}", kind, "")
    else:
        raise UsageError(
            f"{run.root} holds no output of stage {id} to score with",
            f"name a {kind} with --{output}, or a run with --run",
        )
    os.environ.update(ENVIRONMENT)  # before a library reads it
    with _opened(values["score_"]) as (name, file), Console() as console:
        for row in stage.score(artifact, file, name, console.say):
            print(json.dumps(row))  # ASCII, which any terminal and locale takes


def given_options(stage: Stage[Any], values: Mapping[str, Any], *, but: Collection[str]) -> str:
    """The options that were typed, as typed, except those of the parameters ``but``."""
    others = [name for name, value in values.items() if name not in but and _is_given(stage, name, value)]
    return ", ".join(f"--{name.rstrip('_').replace('_', '-')}" for name in others)


def _is_given(stage: Stage[Any], name: str, value: Any) -> bool:
    """Whether an option was typed; those of settings that are off are None, all others that are off are false."""
    return value is not None if name in stage.config.model_fields else bool(value)


@contextmanager
def _opened(path: str) -> Iterator[tuple[str, BinaryIO]]:
    if path == "-":
        yield "<stdin>", sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"--score: {path}: cannot be read: {error.strerror}") from None
    with file:
        yield path, file
