"""How scores are scaled. What is read from files and from functions is in test_train."""

from __future__ import annotations

from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from ftcli.core.errors import UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Context
from ftcli.rl.rewards import ScoreScale
from ftcli.stages.ppo.config import PpoConfig
from ftcli.stages.ppo.held_out import Answer, Exam
from ftcli.stages.ppo.rewards import score_scale


def exam(*scores: float | None) -> Exam:
    return Exam([Answer([3], True, score or 0.0, 0.0, {"rule": score}) for score in scores])


def scale(folder: Path, before: Exam, normalization: Any) -> ScoreScale:
    config = PpoConfig(reward_normalization=normalization)
    return score_scale(Context(config, {}, folder, folder, Events(folder, lambda event: None)), {"rule": None}, before)


def test_answers_without_a_score_do_not_move_the_scale(tmp_path: Path) -> None:
    found = scale(tmp_path, exam(4.0, None, 5.0, 9.0, None), "policy")
    assert (found.mean, found.std) == (6.0, pytest.approx(stdev([4.0, 5.0, 9.0])))


def test_without_any_score_there_is_no_scale(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the 2 held-out answers was given a score") as caught:
        scale(tmp_path, exam(None, None), "policy")
    assert "reward_normalization to none" in caught.value.hint
    assert scale(tmp_path, exam(None, None), "none") == ScoreScale()
