"""Which rows are computed, what is said of the others, and what plain text costs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import Row, write_jsonl
from ftcli.models.load import load_tokenizer
from tests.conftest import artifact, write_data
from tests.stages.eval.evaluating import comparison, evaluate, notes_of, report_of
from tests.tiny import messages_row, preference_row

TEXTS = ["the cat sat on a mat and looked at what was there", "return value of list", "open the file"]


def data_of(folder: Path, rows: list[Row]) -> Artifact:
    """A data folder with these test rows."""
    folder.mkdir(parents=True)
    for split, own in (("train", []), ("validation", []), ("test", rows)):
        write_jsonl(folder / f"{split}.jsonl", own)
    return artifact(Kind.DATA, folder)


def text_rows(*texts: str) -> list[Row]:
    return [{"id": f"t{index}", "text": text, "meta": {}} for index, text in enumerate(texts)]


def answered_with(index: int, answer: str) -> Row:
    row: Any = messages_row(index)
    row["messages"][1]["content"] = answer
    return row  # type: ignore[no-any-return]


# Chat rows ---------------------------------------------------------------------------------------------------------------------


def test_rows_that_are_too_long_are_left_out_and_counted(tmp_path: Path, base: Artifact) -> None:
    rows = [answered_with(0, "the list"), answered_with(1, "the file " * 60), answered_with(2, "the list")]
    inputs = {"models": base, "data": data_of(tmp_path / "data", rows)}
    notes = notes_of(tmp_path, inputs, max_length=80, metrics=("perplexity",))
    result, samples = report_of(tmp_path)
    assert result["rows"] == {"scored": 2, "answered": 2, "left_out": 1}
    assert [row["id"] for row in samples] == ["row-0", "row-2"]
    assert "1 of 3 rows left out: more than 80 tokens (max_length)" in notes


def test_rows_that_a_model_has_no_positions_for_are_left_out_and_counted(tmp_path: Path, base: Artifact) -> None:
    """The model has 512 positions: beyond them it says nothing that means anything."""
    rows = [answered_with(0, "the list"), answered_with(1, "the file " * 300)]
    inputs = {"models": base, "data": data_of(tmp_path / "data", rows)}
    left_out = "1 of 2 rows left out: more tokens, with an answer, than the 512 that base can read"
    assert left_out in notes_of(tmp_path / "long", inputs, max_length=4096, metrics=("perplexity",))
    assert [row["id"] for row in report_of(tmp_path / "long")[1]] == ["row-0"]
    inputs = {"models": base, "data": data_of(tmp_path / "short", rows[:1])}
    with pytest.raises(BadData, match="1 of 1 rows have more tokens, with an answer, than the 512") as caught:
        evaluate(tmp_path / "answers", inputs, metrics=("rouge",), max_new_tokens=500)
    assert "lower max_new_tokens" in caught.value.hint
    evaluate(tmp_path / "no answers", inputs, metrics=("perplexity",), max_new_tokens=500)
    assert report_of(tmp_path / "no answers")[0]["rows"]["scored"] == 1


def test_text_rows_are_read_in_windows_that_the_model_has_positions_for(tmp_path: Path, base: Artifact) -> None:
    inputs = {"models": base, "data": data_of(tmp_path / "data", text_rows(*TEXTS, "the file " * 300))}
    with pytest.raises(UsageError, match="max_length 1024: base can read 512 tokens") as caught:
        evaluate(tmp_path / "run", inputs, metrics=("perplexity",))
    assert "set max_length to 512" in caught.value.hint
    evaluate(tmp_path / "run", inputs, metrics=("perplexity",), max_length=512)
    assert report_of(tmp_path / "run")[0]["rows"]["scored"] == 4


def test_rows_whose_answer_calls_a_tool_are_left_out_and_counted(tmp_path: Path, base: Artifact) -> None:
    calling: Any = messages_row(0)
    call = {"type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}}
    calling["messages"][1] = {"role": "assistant", "content": "", "tool_calls": [call]}
    inputs = {"models": base, "data": data_of(tmp_path / "data", [calling, messages_row(1)])}
    notes = notes_of(tmp_path, inputs, metrics=("perplexity",))
    assert report_of(tmp_path)[0]["rows"] == {"scored": 1, "answered": 1, "left_out": 1}
    assert "1 of 2 rows left out: their last answer calls a tool" in notes


def test_references_in_another_script_are_pointed_out(tmp_path: Path, base: Artifact) -> None:
    inputs = {"models": base, "data": data_of(tmp_path / "data", [answered_with(0, "кошка"), answered_with(1, "мышь")])}
    notes = notes_of(tmp_path, inputs, metrics=("rouge",))
    assert any("set rouge_tokenizer: words" in text for text in notes)


def test_no_rows_is_bad_data(tmp_path: Path, base: Artifact) -> None:
    with pytest.raises(BadData, match="split test has no rows"):
        evaluate(tmp_path, {"models": base, "data": data_of(tmp_path / "data", [])})


def test_only_rows_that_are_too_long_is_bad_data(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    with pytest.raises(BadData, match="8 of 8 rows have more than 16 tokens"):
        evaluate(tmp_path, {"models": base, "data": data}, max_length=16)


def test_rows_of_another_type_are_bad_data(tmp_path: Path, base: Artifact) -> None:
    with pytest.raises(BadData, match=r"test\.jsonl:1: a preference row, messages or text needed"):
        evaluate(tmp_path, {"models": base, "data": data_of(tmp_path / "data", [preference_row(0)])})


def test_chat_and_text_rows_are_not_mixed(tmp_path: Path, base: Artifact) -> None:
    rows = [messages_row(0), *text_rows("the cat")]
    with pytest.raises(BadData, match="split test has both chat and text rows"):
        evaluate(tmp_path, {"models": base, "data": data_of(tmp_path / "data", rows)})


def test_two_rows_with_one_id_are_bad_data(tmp_path: Path, base: Artifact) -> None:
    rows = [messages_row(0), messages_row(1), messages_row(0)]
    with pytest.raises(BadData, match="split test has rows with the same id: row-0"):
        evaluate(tmp_path, {"models": base, "data": data_of(tmp_path / "data", rows)})


def test_a_broken_line_names_file_and_line(tmp_path: Path, base: Artifact) -> None:
    folder = write_data(tmp_path / "data", messages_row, 0, 0, 1)
    (folder / "test.jsonl").write_text((folder / "test.jsonl").read_text() + "{\n")
    with pytest.raises(BadData, match=r"test\.jsonl:2: no JSON"):
        evaluate(tmp_path, {"models": base, "data": artifact(Kind.DATA, folder)})


# Text rows ---------------------------------------------------------------------------------------------------------------------


def loss_of(model: Any, ids: list[int], scored: int) -> float:
    """The nll of the last ``scored`` of ``ids``, by transformers' own loss, which is their mean."""
    labels = torch.tensor([[-100] * (len(ids) - scored) + ids[len(ids) - scored :]])
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids]), labels=labels).loss) * scored


@pytest.mark.parametrize("prefix", ["none", "bos", "eos"])
def test_a_text_costs_what_transformers_says_with_the_token_before_it(
    tmp_path: Path, base: Artifact, prefix: str
) -> None:
    evaluate(tmp_path, {"models": base, "data": data_of(tmp_path / "data", text_rows(*TEXTS))}, prefix=prefix)
    result, samples = report_of(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base.path), load_tokenizer(base.path)
    before = {"none": [], "bos": [tokenizer.bos_token_id], "eos": [tokenizer.eos_token_id]}[prefix]
    assert tokenizer.bos_token_id != tokenizer.eos_token_id
    nll = tokens = size = 0.0
    for text in TEXTS:
        own = tokenizer(text, add_special_tokens=False).input_ids
        ids = before + own
        nll, tokens = nll + loss_of(model, ids, len(ids) - 1), tokens + len(ids) - 1
        size += len(text.encode()) - (0 if before else len(tokenizer.decode(own[:1]).encode()))
    found = result["models"]["base"]
    assert list(found) == ["text_perplexity", "text_bits_per_byte"]
    assert found["text_perplexity"]["value"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    assert found["text_bits_per_byte"]["value"] == pytest.approx(nll / math.log(2) / size, rel=1e-5)
    assert sum(row["models"]["base"]["reference_tokens"] for row in samples) == tokens
    assert [(row["prompt"], row["reference"]) for row in samples] == [([], text) for text in TEXTS]
    assert result["rows"] == {"scored": 3, "answered": 0, "left_out": 0}


def test_a_text_longer_than_the_window_is_scored_in_steps_of_the_stride(tmp_path: Path, base: Artifact) -> None:
    """The loop of transformers' guide to the perplexity of fixed-length models, by which each token counts once."""
    text = " ".join([*TEXTS, *TEXTS])
    data = data_of(tmp_path / "data", text_rows(text))
    evaluate(tmp_path, {"models": base, "data": data}, max_length=16, stride=5)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base.path), load_tokenizer(base.path)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    nll, before = 0.0, 1  # nothing predicts the first token
    for begin in range(0, len(ids), 5):
        end = min(begin + 16, len(ids))
        nll, before = nll + loss_of(model, ids[begin:end], end - before), end
        if end == len(ids):
            break
    found = report_of(tmp_path)[0]["models"]["base"]["text_perplexity"]
    assert found["value"] == pytest.approx(math.exp(nll / (len(ids) - 1)), rel=1e-5)
    assert found["signature"] == "whole text|windows of 16, 5 apart|prefix none"


def test_a_prefix_that_the_tokenizer_has_not_is_refused(tmp_path: Path, base: Artifact) -> None:
    folder = shutil.copytree(base.path, tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    inputs = {
        "models": artifact(Kind.MODEL, folder, label="own"),
        "data": data_of(tmp_path / "data", text_rows(*TEXTS)),
    }
    with pytest.raises(UsageError, match="prefix bos: the tokenizer of own has no such token"):
        evaluate(tmp_path, inputs, prefix="bos")


def test_two_models_are_compared_by_what_the_texts_cost(tmp_path: Path, base: Artifact, damaged: Artifact) -> None:
    texts = [f"{text} {number}" for text in TEXTS for number in range(3)]
    inputs = {"models": (base, damaged), "data": data_of(tmp_path / "data", text_rows(*texts))}
    evaluate(tmp_path, inputs)
    result, _ = report_of(tmp_path)
    found = comparison(result, "damaged", "base", "text_perplexity")
    values = [result["models"][label]["text_perplexity"]["value"] for label in ("base", "damaged")]
    assert found["change"] == pytest.approx(values[1] / values[0])
    assert (found["status"], found["n"]) == ("regressed", 9)


def test_texts_without_perplexity_leave_nothing_to_measure(tmp_path: Path, base: Artifact) -> None:
    inputs = {"models": base, "data": data_of(tmp_path / "data", text_rows(*TEXTS))}
    with pytest.raises(UsageError, match="plain text, of which nothing but perplexity is measured"):
        evaluate(tmp_path, inputs, metrics=("rouge",))


def test_empty_texts_are_left_out_and_counted(tmp_path: Path, base: Artifact) -> None:
    inputs = {"models": base, "data": data_of(tmp_path / "data", text_rows("the cat", " \n", "the list"))}
    notes = notes_of(tmp_path, inputs)
    assert report_of(tmp_path)[0]["rows"] == {"scored": 2, "answered": 0, "left_out": 1}
    assert "1 of 3 rows left out: they are empty" in notes
    with pytest.raises(BadData, match="all 1 text rows are empty"):
        evaluate(tmp_path, {"models": base, "data": data_of(tmp_path / "empty", text_rows(" "))})


@pytest.mark.parametrize("name", ["reward", "judge"])
def test_what_reads_answers_has_nothing_to_read_in_plain_text(
    tmp_path: Path, base: Artifact, lora: Artifact, reward: Artifact, name: str
) -> None:
    inputs = {
        "models": (base, lora),
        "data": data_of(tmp_path / "data", text_rows(*TEXTS)),
        name: {"reward": reward, "judge": base}[name],
    }
    with pytest.raises(UsageError, match=f"^{name}: the rows are plain text, which no model answers"):
        evaluate(tmp_path, inputs)
