from __future__ import annotations

from typing import Any

import pytest

from ftcli.core.config import parse
from ftcli.stages.review.config import ReviewConfig


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "sample"}, "mode sample needs min_accept_rate"),
        ({"mode": "all", "sample_size": 10}, "mode all uses no sample_size"),
        ({"mode": "none", "min_accept_rate": 0.5, "overlap": 2}, "mode none uses no min_accept_rate and no overlap"),
        (
            {"mode": "none", "guidelines": "Be strict.", "reasons": ["bad"]},
            "mode none uses no guidelines and no reasons",
        ),
        ({"reasons": []}, "reasons: give at least one"),
        ({"reasons": ["wrong", " "]}, "none of them empty"),
        ({"reasons": ["wrong", "wrong"]}, "reasons must differ from each other"),
        ({"reasons": ["reviewers disagree"]}, "reasons must differ"),
        ({"sample_size": 0, "mode": "sample", "min_accept_rate": 0.5}, "sample_size"),
        ({"min_accept_rate": 1.5}, "min_accept_rate"),
        ({"overlap": 0}, "overlap"),
    ],
)
def test_settings_that_contradict_or_do_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    config, problems = parse(ReviewConfig, settings)
    assert config is None
    assert said in problems[0].message


@pytest.mark.parametrize("settings", [{}, {"mode": "none"}, {"mode": "sample", "min_accept_rate": 0.8}])
def test_each_mode_can_be_asked_for(settings: dict[str, Any]) -> None:
    config, problems = parse(ReviewConfig, settings)
    assert config is not None
    assert not problems
