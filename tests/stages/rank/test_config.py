from __future__ import annotations

from typing import Any

import pytest

from ftcli.core.config import parse
from ftcli.stages.rank.config import RankConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"margin": "strength"}, "it needs answers_per_prompt 2"),
        ({"criteria": ("a", "a")}, "names that differ"),
        ({"criteria": ("a", " ")}, "none of them empty"),
        ({"repeat_share": 0.5}, "repeat_share: input should be less than or equal to"),
        ({"splits": ()}, "splits: "),
        ({"answers_per_prompt": 9}, "answers_per_prompt: "),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    config, problems = parse(RankConfig, values)
    assert config is None
    assert message in problems[0].message


def test_strengths_of_two_answers_can_be_margins() -> None:
    assert RankConfig(margin="strength", answers_per_prompt=2).margin == "strength"
