from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from ftcli.core.errors import BadData
from ftcli.models.load import load_tokenizer
from ftcli.training.collate import collator


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model)


def test_rows_are_padded_on_the_right_and_nothing_is_read_from_the_padding_id(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """The first row ends with the padding id and is trained there, as with models whose pad is their end of turn."""
    pad = tokenizer.pad_token_id
    tokenizer.padding_side = "left"
    rows = [
        {"input_ids": [5, pad, 6, pad], "labels": [-100, -100, 6, pad]},
        {"input_ids": [7, 8], "labels": [-100, 8]},
    ]
    batch = collator(tokenizer)(rows)
    assert batch["input_ids"].tolist() == [[5, pad, 6, pad], [7, 8, pad, pad]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 6, pad], [-100, 8, -100, -100]]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_it_is_what_trl_would_take_by_itself(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = [{"input_ids": list(range(3, 3 + size)), "labels": [-100, *range(4, 3 + size)]} for size in (2, 5, 3)]
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to="none",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    ours = collator(tokenizer)
    assert ours == trainer.data_collator
    theirs = trainer.data_collator(rows)
    assert {name: value.tolist() for name, value in ours(rows).items()} == {
        name: value.tolist() for name, value in theirs.items()
    }


def test_a_tokenizer_without_padding_token_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.pad_token = None
    with pytest.raises(BadData, match="no padding token") as raised:
        collator(tokenizer)
    assert '"pad_token"' in raised.value.hint
