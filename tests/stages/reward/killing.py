"""Run a stage that dies in the middle, as by kill -9: whatever it was doing stops, and nothing is tidied up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context, Stage


class Killed(BaseException):
    """Not an Exception, so nothing can catch it by accident."""


def run_until(stage: Stage[Any], folder: Path, inputs: Mapping[str, Artifact], step: int, **settings: Any) -> None:
    """Run ``stage`` in the folders that `tests.conftest.run_stage` uses, until it has written the metrics of ``step``."""

    def sink(event: dict[str, Any]) -> None:
        if event["event"] == "metrics" and event["step"] == step:
            raise Killed

    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    many = {name: (item,) for name, item in inputs.items()}
    try:
        stage.run(Context(stage.config(**settings), many, out, scratch, Events(scratch, sink)))
    except Killed:
        return
    raise AssertionError(f"the stage ended before step {step}")
