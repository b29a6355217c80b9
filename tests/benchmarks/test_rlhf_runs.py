from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import rlhf_runs
from benchmarks.rlhf_runs import Broken, metrics_of, read, wrong


def test_another_seed_is_another_run_and_the_same_one_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlhf_runs, "RUNS", {"short": Broken({}, rollouts=1, response_length=2)})
    wrong(tmp_path, 0)
    wrong(tmp_path, 1)
    first, second = (metrics_of(tmp_path, "short", seed) for seed in (0, 1))
    assert read(first)[0]["objective/scores"] != read(second)[0]["objective/scores"]
    made = first.stat().st_mtime_ns
    wrong(tmp_path, 0)
    assert first.stat().st_mtime_ns == made
