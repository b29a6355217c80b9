from __future__ import annotations

import pytest

from ftcli.stages import STAGES
from tests.pipeline.toy import ROOT, TOY_STAGES


@pytest.fixture
def toy_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy stages in the table of stages, importable by workers too."""
    for name, entry in TOY_STAGES.items():
        monkeypatch.setitem(STAGES, name, entry)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
