from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import Row, read_jsonl
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


def sampled(folder: Path, inputs: dict[str, Artifact | tuple[Artifact, ...]], **settings: int) -> list[Row]:
    few = {"max_new_tokens": 6, "train_prompts": 3, "validation_prompts": 2, "samples_per_prompt": 2}
    context = run_stage(SAMPLE, folder, inputs, precision="fp32", **few | settings)
    return list(read_jsonl(context.out / "samples" / "samples.jsonl"))


def test_other_models_answer_the_same_prompts_and_change_nothing_of_the_first(
    tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    alone = {"model": artifact(Kind.MODEL, tiny_model, label="a"), "data": artifact(Kind.DATA, tiny_data)}
    others = (artifact(Kind.MODEL, tiny_model, label="b"), artifact(Kind.MODEL, tiny_model, label="c"))
    one, three = sampled(tmp_path / "1", alone), sampled(tmp_path / "3", {**alone, "others": others})
    assert [answer.keys() for row in one for answer in row["answers"]] == [{"text", "tokens", "finish_reason"}] * 10
    assert [[answer["model"] for answer in row["answers"]] for row in three] == [["a", "a", "b", "b", "c", "c"]] * 5
    for before, after in zip(one, three, strict=True):
        assert [{**answer, "model": "a"} for answer in before["answers"]] == after["answers"][:2]
        assert {**before, "answers": []} == {**after, "answers": []}
    assert len({answer["text"] for answer in three[0]["answers"]}) == 6, "each has random streams of its own"
    pairs = [(tmp_path / name / "out" / "pairs" / "train.jsonl").read_bytes() for name in "13"]
    assert pairs[0] == pairs[1], "pairs are the first model's"


def test_two_models_of_one_name_are_refused(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    model, data = artifact(Kind.MODEL, tiny_model, label="a"), artifact(Kind.DATA, tiny_data)
    with pytest.raises(UsageError, match="others: a is what the model is called too"):
        run_stage(SAMPLE, tmp_path, {"model": model, "others": (model,), "data": data})


def test_prompts_of_test_are_answered_when_asked_for_and_give_no_pairs(
    tmp_path: Path, tiny_model: Path, tiny_data: Path
) -> None:
    inputs = {"model": artifact(Kind.MODEL, tiny_model), "data": artifact(Kind.DATA, tiny_data)}
    without, found = sampled(tmp_path / "0", inputs), sampled(tmp_path / "1", inputs, test_prompts=2)
    assert [row["split"] for row in found] == ["train"] * 3 + ["validation"] * 2 + ["test"] * 2
    assert found[:5] == without
    assert (tmp_path / "1" / "out" / "pairs" / "test.jsonl").read_text() == ""
