from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftcli.core.errors import BadData
from ftcli.data.chat import stop_token_ids
from ftcli.models.load import load_tokenizer
from ftcli.stages.sft.encode import Encoded, encode
from ftcli.training.loss import IGNORED
from tests.tiny import messages_row


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model)


def chat(question: str, answer: str, name: str = "r") -> dict[str, object]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": messages, "meta": {}}


def examples(encoded: Encoded) -> list[dict[str, list[int]]]:
    columns = zip(encoded.input_ids, encoded.labels, strict=True)
    return [{"input_ids": ids, "labels": labels} for ids, labels in columns]


def test_the_answer_and_its_end_are_trained_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # labels must not come from comparing ids with padding
    rows = [messages_row(0), chat("What is a much longer question?", "list")]
    encoded = encode(tokenizer, rows, stop_token_ids(tokenizer), 512)
    batch = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)(examples(encoded))
    trained = [tokenizer.decode([label for label in row if label != IGNORED]) for row in batch["labels"].tolist()]
    assert trained == ["Return the cat of the given object.<|im_end|>", "list<|im_end|>"]
    assert not (batch["labels"][batch["attention_mask"] == 0] != IGNORED).any()
    ids = batch["input_ids"][0][batch["attention_mask"][0] == 1]
    assert tokenizer.decode(ids) == (
        "<|im_start|>user\nWhat does cat 0 do?<|im_end|>\n"
        "<|im_start|>assistant\nReturn the cat of the given object.<|im_end|>"
    )
    assert (encoded.truncated, encoded.dropped, encoded.labels_lost) == (0, 0, 0)


def test_every_assistant_turn_is_trained(tokenizer: PreTrainedTokenizerBase) -> None:
    row = chat("What is a cat?", "a mat")
    row["messages"] = [*row["messages"], *chat("and a list?", "a file")["messages"]]  # type: ignore[misc]
    labels = encode(tokenizer, [row], stop_token_ids(tokenizer), 512).labels[0]
    assert tokenizer.decode([label for label in labels if label != IGNORED]) == "a mat<|im_end|>a file<|im_end|>"


def test_over_long_rows_are_cut_or_dropped_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [chat("cat", "mat"), chat("cat", "mat " * 40), chat("cat " * 60, "mat")]
    stops = stop_token_ids(tokenizer)
    whole = encode(tokenizer, rows, stops, 512)
    answers = [sum(label != IGNORED for label in row) for row in whole.labels]
    limit = whole.lengths[0] + 3
    cut = encode(tokenizer, rows, stops, limit)
    assert (cut.truncated, cut.dropped, cut.lengths) == (1, 1, [whole.lengths[0], limit])
    assert cut.labels_lost == (whole.lengths[1] - limit) + answers[2]
    assert cut.labels_kept == sum(answers) - cut.labels_lost
    assert cut.input_ids[1] == whole.input_ids[1][:limit]


def test_a_template_that_refuses_a_row_names_it(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(BadData, match=r"row r7: .*no system role"):
        encode(tokenizer, [chat("a", "b", "r7")], frozenset({2}), 512)


def test_a_model_without_a_chat_template_is_named_at_its_first_row(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    with pytest.raises(BadData, match=r"row r7: the model has no chat template") as raised:
        encode(tokenizer, [chat("a", "b", "r7")], frozenset({2}), 512)
    assert "chat_template.jinja" in raised.value.hint
