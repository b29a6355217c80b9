from __future__ import annotations

from typing import Any

import pytest

from ftcli.core.config import parse, semantic
from ftcli.stages.synth.config import SynthConfig


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"teacher_url": "http://localhost/v1"}, "teacher_url and teacher_model belong together"),
        ({"attributes": {"topic": []}}, "topic has no values"),
        ({"min_chars": 9, "max_chars": 8}, "min_chars must not be above max_chars"),
        ({"depth": 2}, "depth is a setting of mode evolve"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], problem: str) -> None:
    _, problems = parse(SynthConfig, settings)
    assert [problem in item.message for item in problems] == [True]


def test_speed_is_no_part_of_the_fingerprint() -> None:
    assert semantic(SynthConfig(concurrency=3, batch_size=2, requests=5)) == {"requests": 5}
