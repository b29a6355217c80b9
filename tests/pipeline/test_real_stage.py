"""A stage that loads a model, through the controller: what the toy stages cannot show."""

from __future__ import annotations

import json
from pathlib import Path

from ftcli.data.rows import read_jsonl
from tests.cli.in_process import ftcli


def test_the_sample_stage_runs_is_cached_and_gives_the_same_bytes_again(
    tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    settings = ("--train-prompts", "3", "--validation-prompts", "1", "--max-new-tokens", "4", "--precision", "fp32")
    command = ("sample", "--model", tiny_model, "--data", tiny_data, *settings)
    first = ftcli(*command, "--run", tmp_path / "a", "--json")  # a worker of its own
    assert first.code == 0, first.err
    assert "sample: run (first time)" in first.err
    assert "12 answers" in first.err, "the stage's note comes through the pipe"
    found = json.loads(first.out)
    assert found["facts"]["sample/answers"] == 12
    assert found["facts"]["perf/peak_memory_bytes"] > 2**27, "torch was loaded in the worker"
    assert len(list(read_jsonl(Path(found["outputs"]["samples"]["path"]) / "samples.jsonl"))) == 4
    again = ftcli(*command, "--run", tmp_path / "a", "--batch-size", "1")
    assert again.err == "sample: cached\n"
    assert again.out.strip() == found["outputs"]["samples"]["path"]
    second = json.loads(ftcli(*command, "--run", tmp_path / "b", "--json", "--in-process", "--batch-size", "1").out)
    for name in ("samples", "pairs"):
        assert second["outputs"][name]["digest"] == found["outputs"][name]["digest"]


def test_a_row_that_is_no_json_exits_65_with_file_and_line(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    lines = (tiny_data / "train.jsonl").read_text().splitlines()[:2]
    (data / "train.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    called = ftcli("sample", "--run", tmp_path / "run", "--model", tiny_model, "--data", data, "--in-process")
    assert (called.code, called.out) == (65, "")
    assert f"error: {data}/train.jsonl:3: no JSON" in called.err
    assert not (tmp_path / "run" / "stages").exists()
