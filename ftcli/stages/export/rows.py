"""What the two models are compared on: held-out rows, or built-in prompts with the trained model's own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftcli.core.errors import BadData
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import render_answer, render_prompt, stop_token_ids
from ftcli.data.rows import Row, RowType, prompt_of, read_split, reference_of
from ftcli.models.parity import Pair
from ftcli.stages.export.config import ExportConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELD_OUT = ("test", "validation")
MAX_ROW_TOKENS = 1024
"""Longer answers are cut there: the comparison needs many positions, not whole rows."""
ANSWER_TOKENS = 32
PROMPTS = (
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "What is the capital of France, and what is it known for?",
    "Explain what a hash table is to a beginner.",
    "Translate to German: Good morning, how are you today?",
    "List three ways to save water at home.",
    "Write a Python function that reverses a string.",
    "What is 17 times 23? Show your steps.",
    "Summarize in one sentence: The meeting was moved from Monday to Thursday because two people were ill.",
    "Who wrote the play Hamlet?",
    "Give me a recipe for pancakes.",
    "What are the differences between a virus and a bacterium?",
    "Suggest a name for a small coffee shop near a library.",
    "How do I undo the last commit in git?",
    "Continue the story: The old door had not been opened for years.",
    "Is it safe to eat raw eggs?",
)


def held_out_pairs(
    ctx: Context[ExportConfig], tokenizer: PreTrainedTokenizerBase, eos: int | list[int] | None
) -> tuple[list[Pair], str]:
    """``(prompt ids, answer ids)`` of the input ``data``, and what they are in words; none without data."""
    data = ctx.maybe("data")
    if data is None:
        return [], ""
    split, rows = _held_out(data, ctx.config.parity_rows)
    stop_ids = stop_token_ids(tokenizer, eos)
    found: list[Pair] = []
    for row in rows:
        reference = reference_of(row)
        if reference is not None:
            prompt, answer = render_answer(tokenizer, prompt_of(row), reference, stop_ids, tools=row.get("tools"))
            found.append((prompt, answer[: max(0, MAX_ROW_TOKENS - len(prompt))]))
    pairs = limited(found, ctx.config.parity_tokens)
    if not pairs:
        raise BadData(
            f"{data.ref}: no {split} row has an answer in text within {MAX_ROW_TOKENS} tokens",
            "leave --data out to compare on built-in prompts",
        )
    return pairs, f"{len(pairs)} {split} rows of {data.ref}"


def _held_out(data: Artifact, limit: int) -> tuple[str, list[Row]]:
    for split in HELD_OUT:
        rows = read_split(data.path, split, RowType.MESSAGES, RowType.PREFERENCE, limit=limit)
        if rows:
            return split, rows
    raise BadData(f"{data.ref}: no test and no validation rows", "leave --data out to compare on built-in prompts")


def limited(pairs: list[Pair], tokens: int) -> list[Pair]:
    """The first pairs, with no more than ``tokens`` answer tokens together."""
    kept: list[Pair] = []
    for prompt, answer in pairs:
        if answer and tokens > 0:
            kept.append((prompt, answer[:tokens]))
            tokens -= len(answer)
    return kept


def built_in_pairs(model: Any, tokenizer: PreTrainedTokenizerBase, config: ExportConfig) -> tuple[list[Pair], str]:
    """Built-in prompts with ``model``'s own greedy answers; plain text where the tokenizer has no chat template."""
    device = model.get_input_embeddings().weight.device
    pairs: list[Pair] = []
    for text in PROMPTS[: config.parity_rows]:
        prompt = (
            render_prompt(tokenizer, [{"role": "user", "content": text}])
            if tokenizer.chat_template
            else [int(token) for token in tokenizer(text)["input_ids"]]
        )
        ids = tokenizer.pad({"input_ids": [prompt]}, return_tensors="pt").to(device)
        whole = model.generate(
            **ids, do_sample=False, max_new_tokens=ANSWER_TOKENS, pad_token_id=tokenizer.pad_token_id
        )
        pairs.append((prompt, whole[0, len(prompt) :].tolist()))
    kept = limited(pairs, config.parity_tokens)
    return kept, f"{len(kept)} built-in prompts with the trained model's own answers"
