from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftcli.core.errors import BadData
from ftcli.data.chat import stop_token_ids
from ftcli.models.load import load_tokenizer
from ftcli.stages.sft.encode import IGNORED, Encoded, TooLong, encode
from ftcli.training import loss
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


def test_a_row_cut_from_the_left_keeps_its_last_tokens_and_loses_its_beginning(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rows = [chat("cat " * 40, "mat"), chat("cat", "mat")]
    stops = stop_token_ids(tokenizer)
    whole = encode(tokenizer, rows, stops, 512)
    limit = whole.lengths[1]
    cut = encode(tokenizer, rows, stops, limit, "truncate_left")
    assert cut.input_ids == [whole.input_ids[0][-limit:], whole.input_ids[1]]
    assert cut.labels == [whole.labels[0][-limit:], whole.labels[1]]
    assert (cut.truncated, cut.dropped, cut.labels_lost) == (1, 0, 0)
    assert cut.input_ids[0][0] != whole.input_ids[0][0], "the token that rows begin with is cut too"


def test_the_first_token_that_is_left_has_no_label_since_nothing_predicts_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    row = chat("cat", "mat " * 40)
    stops = stop_token_ids(tokenizer)
    whole = encode(tokenizer, [row], stops, 512)
    cut = encode(tokenizer, [row], stops, 8, "truncate_left")
    assert cut.labels == [[IGNORED, *whole.input_ids[0][-7:]]]
    assert (cut.labels_kept, cut.labels_lost) == (7, whole.labels_kept - 7)


def test_rejected_rows_are_those_that_are_too_long_and_no_others(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [chat("cat", "mat"), chat("cat", "mat " * 40), chat("cat", "mat")]
    stops = stop_token_ids(tokenizer)
    whole = encode(tokenizer, rows, stops, 512)
    kept = encode(tokenizer, rows, stops, whole.lengths[0], "reject")
    assert kept.input_ids == [whole.input_ids[0], whole.input_ids[2]]
    assert (kept.truncated, kept.dropped_by) == (0, {"too_long": 1})
    lost = sum(label != IGNORED for label in whole.labels[1])
    assert (kept.labels_lost, kept.share_lost) == (lost, lost / whole.labels_kept)


def test_too_long_error_names_the_first_row_their_share_and_the_longest(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [chat("cat", "mat"), chat("cat", "mat " * 20, "r2"), chat("cat", "mat " * 40, "r3"), chat("cat", "mat")]
    stops = stop_token_ids(tokenizer)
    lengths = encode(tokenizer, rows, stops, 512).lengths
    with pytest.raises(BadData) as raised:
        encode(tokenizer, rows, stops, lengths[0], "error")
    assert raised.value.message == (
        f"row r2 has {lengths[1]} tokens, max_length is {lengths[0]}; of 4 rows 2 (50.0%) are longer than that, the longest "
        f"has {lengths[2]}"
    )
    assert f"--max-length {lengths[2]} takes all" in raised.value.hint
    assert "--too-long truncate, truncate_left or reject" in raised.value.hint
    assert encode(tokenizer, rows, stops, lengths[2], "error").lengths == lengths


@pytest.mark.parametrize("too_long", ["truncate", "truncate_left", "reject"])
@pytest.mark.parametrize("limit", [8, 12, 20, 60, 512])
def test_rows_in_are_rows_kept_and_dropped_and_no_answer_token_is_uncounted(
    tokenizer: PreTrainedTokenizerBase, too_long: TooLong, limit: int
) -> None:
    rows = [chat("cat " * asked, "mat " * said) for asked in (1, 30) for said in (1, 30)]
    stops = stop_token_ids(tokenizer)
    whole = encode(tokenizer, rows, stops, 10_000)
    found = encode(tokenizer, rows, stops, limit, too_long)
    assert len(rows) == len(found.input_ids) + found.dropped
    assert found.labels_kept == sum(label != IGNORED for row in found.labels for label in row)
    assert found.labels_kept + found.labels_lost == whole.labels_kept
    assert all(length <= limit for length in found.lengths)
    assert found.truncated <= sum(length > limit for length in whole.lengths)
    assert whole.share_lost == 0


def test_a_row_that_is_read_from_a_raw_file_is_named_by_its_place(tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"messages": chat("a", "b")["messages"], "meta": {"file": "x.jsonl", "line": 7}}
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(BadData, match=r"row x\.jsonl:7: "):
        encode(tokenizer, [row], frozenset({2}), 512)


def test_the_ignored_label_is_that_of_the_loss_and_of_pytorch() -> None:
    import torch

    assert IGNORED == loss.IGNORED == torch.nn.CrossEntropyLoss().ignore_index


def test_the_settings_can_name_the_policies_without_torch() -> None:
    assert get_args(TooLong) == ("truncate", "truncate_left", "reject", "error")
    code = "import sys, ftcli.stages.sft.encode; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
