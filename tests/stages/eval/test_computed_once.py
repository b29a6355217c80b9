"""What a model said is not computed again: not by the next evaluation, nor by one that goes on after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.stage import Artifact
from ftcli.data.rows import read_jsonl
from tests.stages.eval.evaluating import evaluate, report_of


def test_a_second_evaluation_computes_nothing_and_loads_no_weights(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, reward: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = shutil.copytree(base.path, tmp_path / "model")
    own = replace(base, path=weights)
    inputs = {"models": (own, replace(lora, base=own)), "data": data, "reward": replace(reward, base=own)}
    settings = {"suite": "general", "suite_limit": 6}
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))
    evaluate(tmp_path / "first", inputs, **settings)
    first, samples = report_of(tmp_path / "first")
    assert all(work["computed"] > 0 for work in first["work"].values())
    (weights / "model.safetensors").unlink()
    evaluate(tmp_path / "second", inputs, **settings)
    second, again = report_of(tmp_path / "second")
    assert {label: work["computed"] for label, work in second["work"].items()} == {"base": 0, "lora": 0}
    assert again == samples
    assert {**second, "work": 0, "artifacts": 0} == {**first, "work": 0, "artifacts": 0}


def test_only_new_rows_are_computed(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    own = replace(base, digest="sha256:not known yet")
    for limit, fresh in ((3, 3), (5, 2)):
        evaluate(tmp_path / str(limit), {"models": own, "data": data}, limit=limit, metrics=("perplexity",))
        assert report_of(tmp_path / str(limit))[0]["work"]["base"]["computed"] == fresh


def stop_at(label: str) -> Callable[[dict[str, Any]], None]:
    """An event sink that interrupts the stage when ``label`` has its first rows done."""

    def sink(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["task"].startswith(label):
            raise KeyboardInterrupt

    return sink


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"models": (base, lora), "data": data}
    evaluate(tmp_path / "through", inputs, use_cache=False)
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "stopped", inputs, stop_at("lora"), batch_size=3)
    assert not (tmp_path / "stopped/out/report/metrics.json").exists()
    evaluate(tmp_path / "stopped", inputs)
    through, samples = report_of(tmp_path / "through")
    result, again = report_of(tmp_path / "stopped")
    assert result["work"]["base"]["computed"] == 0
    assert result["work"]["lora"]["cached"] == 3
    assert [row["models"]["base"] for row in again] == [row["models"]["base"] for row in samples]
    assert result["models"]["lora"]["perplexity"]["value"] == pytest.approx(
        through["models"]["lora"]["perplexity"]["value"], rel=1e-5
    )
    lines = list(read_jsonl(tmp_path / "stopped/scratch/metrics.jsonl"))
    assert [line["step"] for line in lines] == [0, 1]
