"""From rows of ids to batches of tensors: the collator that training uses, and `ftcli inspect-mask` shows rows through."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftcli.core.errors import BadData


def collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorForLanguageModeling:
    """Makes of rows with ``input_ids`` and ``labels`` a batch of ``input_ids``, ``attention_mask`` and ``labels``, each [B, T].

    Rows are padded on the right, whatever side the tokenizer pads on, and labels with -100. The attention mask comes from
    the rows' lengths and never from ``input_ids != pad``, since a padding token may be the token that ends a turn.

    Raises `BadData` if the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise BadData(
            "the tokenizer has no padding token, so rows cannot be put into one batch",
            'set "pad_token" in its tokenizer_config.json, e.g. to its eos_token',
        )
    return DataCollatorForLanguageModeling(pad_token_id=int(tokenizer.pad_token_id))
