"""Shared fixtures: a tiny model, data folders, and a way to run one stage without the controller. No test reaches the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from ftcli.core.artifacts import digest_records, file_records
from ftcli.core.config import StageConfig
from ftcli.core.events import Events, Sink
from ftcli.core.stage import Artifact, Context, Kind, Stage
from ftcli.core.stop import Stop
from ftcli.data.rows import Row, write_jsonl
from tests.tiny import messages_row, preference_row, write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny random model; do not write into it."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def write_data(folder: Path, make: Callable[[int], Row], train: int, validation: int, test: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        write_jsonl(folder / f"{split}.jsonl", [make(index) for index in range(start, start + count)])
        start += count
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of messages rows: 24 train, 8 validation, 8 test."""
    return write_data(tmp_path_factory.mktemp("data") / "chat", messages_row, 24, 8, 8)


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of preference rows: 24 train, 8 validation, 8 test."""
    return write_data(tmp_path_factory.mktemp("data") / "pairs", preference_row, 24, 8, 8)


def artifact(kind: Kind, path: Path, *, ref: str = "", label: str = "", base: Artifact | None = None) -> Artifact:
    """An input artifact for a folder or file, digested as the controller would."""
    return Artifact(kind, ref or str(path), path, digest_records(file_records(path)), label or path.name, base)


def run_stage(
    stage: Stage[Any],
    folder: Path,
    inputs: Mapping[str, Artifact | tuple[Artifact, ...]],
    *,
    sink: Sink = lambda event: None,
    stop: Stop | None = None,
    desk: Path | None = None,
    **settings: Any,
) -> Context[Any]:
    """Run ``stage`` in ``folder/out`` with ``folder/scratch``, in this process; return its context.

    Running again with the same folder resumes from what scratch holds, as a worker does after a crash. ``sink`` hears its events;
    ``desk`` is where people are asked.
    """
    config: StageConfig = stage.config(**settings)
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    many = {name: item if isinstance(item, tuple) else (item,) for name, item in inputs.items()}
    context = Context(config, many, out, scratch, Events(scratch, sink), stop or Stop(), desk=desk)
    stage.run(context)
    return context
