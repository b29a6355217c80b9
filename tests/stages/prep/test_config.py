"""Settings of prep: wrong ones are named before anything runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ftcli.core.config import parse
from ftcli.stages.prep.config import PrepConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"map": {"promt": "x"}}, "map: no format reads a column 'promt'; did you mean prompt?"),
        ({"map": {"zzz": "x"}}, "known: instruction, output"),
        ({"validation_share": 0.5, "test_share": 0.5}, "together must be below 1"),
        ({"limit": 0}, "limit"),
        ({"max_reject_rate": 2}, "max_reject_rate"),
        ({"format": "alpacca"}, "format"),
        ({"rules": ["alpacca"]}, "rules: unknown 'alpacca'; did you mean alpaca?"),
        ({"keep_languages": ["english"]}, "'english' is no language code such as en or de"),
        ({"keep_languages": ["en"], "detect_language": False}, "keep_languages needs detect_language"),
        ({"weights": {"web": 0}}, "web: 0 is no weight above 0"),
        ({"near_threshold": 0.7}, "flag_threshold must not be above near_threshold"),
        ({"too_long": "truncate"}, "too_long truncate needs max_length"),
    ],
)
def test_a_wrong_setting_is_explained(values: dict[str, object], message: str) -> None:
    config, problems = parse(PrepConfig, values)
    assert config is None
    (problem,) = problems
    assert message in problem.message


def test_a_misspelt_format_has_a_hint() -> None:
    _, (problem,) = parse(PrepConfig, {"format": "alpacca"})
    assert problem.hint == "did you mean alpaca?"


def test_stage_and_config_import_nothing_heavy() -> None:
    code = (
        "import sys, ftcli.stages.prep.stage; "
        "print([n for n in ('torch', 'transformers', 'datasets', 'pyarrow', 'ftfy', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
