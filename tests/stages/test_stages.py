from __future__ import annotations

import inspect

import pytest

from ftcli.launch.spec import load_stage
from ftcli.stages import STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stages_module_is_what_its_run_imports(name: str) -> None:
    stage = load_stage(STAGES[name][0])
    if stage.module:
        assert f"from {stage.module} import " in inspect.getsource(stage.run)
