from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import BadData
from ftcli.core.stage import Kind
from ftcli.data.rows import read_jsonl
from ftcli.stages.sample.generate import make_pairs
from ftcli.stages.sample.stage import SAMPLE
from tests.conftest import artifact, run_stage, write_data
from tests.tiny import messages_row

ROW = {
    "id": "a",
    "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "The answer."}],
    "meta": {},
}


def test_pairs_prefer_the_reference_and_drop_identical_answers_with_a_count() -> None:
    counts: dict[str, int] = {}
    pairs = make_pairs(ROW, ["Wrong.", "The answer.", "Wrong.", "Other."], counts)
    assert [pair["rejected"][0]["content"] for pair in pairs] == ["Wrong.", "Other."]
    assert all(pair["chosen"] == [{"role": "assistant", "content": "The answer."}] for pair in pairs)
    assert all(pair["prompt"] == [{"role": "user", "content": "Q"}] for pair in pairs)
    assert counts == {"answers_equal_to_reference": 1, "repeated_answers": 1}


def test_a_prompt_without_reference_gives_no_pair_and_is_counted() -> None:
    counts: dict[str, int] = {}
    assert make_pairs({"id": "a", "prompt": [{"role": "user", "content": "Q"}], "meta": {}}, ["x"], counts) == []
    assert counts == {"prompts_without_reference": 1}


def test_answers_do_not_depend_on_the_batch_size(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    inputs = {"model": artifact(Kind.MODEL, tiny_model), "data": artifact(Kind.DATA, tiny_data)}
    found = []
    for batch_size in (1, 5):
        settings = {"batch_size": batch_size, "max_new_tokens": 6, "train_prompts": 4, "validation_prompts": 2}
        context = run_stage(SAMPLE, tmp_path / str(batch_size), inputs, precision="fp32", **settings)
        found.append(list(read_jsonl(context.out / "samples" / "samples.jsonl")))
        assert context.events.summary["sample/answers"] == 18
    assert found[0] == found[1]
    assert [record["split"] for record in found[0]] == ["train"] * 4 + ["validation"] * 2
    texts = {answer["text"] for record in found[0] for answer in record["answers"]}
    assert len(texts) > 10, "samples of one prompt differ from each other"


def test_an_empty_data_folder_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    empty = write_data(tmp_path / "data", messages_row, 0, 0, 0)
    inputs = {"model": artifact(Kind.MODEL, tiny_model), "data": artifact(Kind.DATA, empty)}
    with pytest.raises(BadData, match="no prompt to answer"):
        run_stage(SAMPLE, tmp_path, inputs)
