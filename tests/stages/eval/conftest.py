"""Models and rows to evaluate. No test here finds what another session or the user's own evaluations computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftcli.core.stage import Artifact, Kind
from ftcli.models.heads import random_head, save_head
from tests.conftest import artifact
from tests.stages.eval.evaluating import write_adapter, write_damaged


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTCLI_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model, label="base")


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> Artifact:
    """A random adapter on ``base``."""
    folder = write_adapter(tmp_path_factory.mktemp("adapters") / "lora", base)
    return artifact(Kind.MODEL, folder, label="lora", base=base)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> Artifact:
    folder = write_damaged(tmp_path_factory.mktemp("damaged") / "damaged", base)
    return artifact(Kind.MODEL, folder, label="damaged")


@pytest.fixture(scope="session")
def reward(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> Artifact:
    folder = write_adapter(tmp_path_factory.mktemp("reward") / "reward", base, seed=3)
    save_head(folder, random_head(64, 0))
    return artifact(Kind.REWARD, folder, base=base)


@pytest.fixture(scope="session")
def data(tiny_data: Path) -> Artifact:
    return artifact(Kind.DATA, tiny_data)
