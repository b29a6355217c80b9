"""How long rows are, in characters and in a model's tokens.

Tokens are counted on the strings that `ftcli.data.chat` would render, encoded in batches. The first row goes
through `chat` itself, so a model whose template cannot be trained on is refused here and not after an hour of
training.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from ftcli.core.errors import BadData
from ftcli.data.chat import render_answer, render_messages
from ftcli.data.records import Reason, Reject, raw_json
from ftcli.data.rows import Message, Row, prompt_of, reference_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of one row: all up to the end of the last answer, and those of them that a loss counts."""

    total: int
    trained: int


def describe(values: Iterable[int]) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum (nearest rank; the mean to two places), all 0 without values."""
    ordered = sorted(values)
    if not ordered:
        return {"mean": 0, "p50": 0, "p95": 0, "max": 0}
    ranks = {
        name: ordered[-(-percent * len(ordered) // 100) - 1]
        for name, percent in (("p50", 50), ("p95", 95), ("max", 100))
    }
    return {"mean": round(statistics.fmean(ordered), 2), **ranks}


def characters(row: Row) -> tuple[int, int]:
    """Characters of a row's prompt and of its reference answer; all of a text row counts as its answer."""
    if "text" in row:
        return 0, len(row["text"])
    return sum(len(message["content"]) for message in prompt_of(row)), len(reference_of(row) or "")


def count_tokens(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> Iterator[Length]:
    """The length of each row under the tokenizer's chat template; of a pair, that of its longer side.

    Raises `BadData` if the template refuses a row or does not end an answer with one of ``stop_ids``.
    """
    if rows and "text" not in rows[0]:
        render_messages(tokenizer, _conversations(rows[0])[0], stop_ids)
    for start in range(0, len(rows), BATCH_ROWS):
        yield from _count_batch(rows[start : start + BATCH_ROWS], tokenizer, stop_ids)


def _count_batch(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> Iterator[Length]:
    strings = [_strings(row, tokenizer) for row in rows]
    flat = [text for sides in strings for side in sides for text in side]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"]) if flat else iter(())
    for row, sides in zip(rows, strings, strict=True):
        lengths = [_length([next(encoded) for _ in side], stop_ids) for side in sides]
        if None in lengths:
            lengths = [_exact_length(messages, row, tokenizer, stop_ids) for messages in _conversations(row)]
        longest = max((length for length in lengths if length), key=lambda length: length.total)
        yield longest if "text" not in row else Length(longest.total, longest.total)


def _conversations(row: Row) -> list[list[Message]]:
    if "messages" in row:
        return [row["messages"]]
    if "chosen" in row:
        return [[*row["prompt"], *row[side]] for side in ("chosen", "rejected")]
    return [row["prompt"]]


def _strings(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """For each side of a row: the text before and through each trained answer; a single text if none is."""
    if "text" in row:
        return [[row["text"]]]
    last_only = "chosen" in row
    try:
        return [_prefixes(messages, tokenizer, last_only) for messages in _conversations(row)]
    except TemplateError as error:
        place = f"{row['meta']['file']}:{row['meta']['line']}"
        raise BadData(
            f"{place}: the model's chat template refuses the row: {error}", "use another model, or drop such rows"
        ) from None


def _prefixes(messages: list[Message], tokenizer: PreTrainedTokenizerBase, last_only: bool) -> list[str]:
    def render(count: int, answer_next: bool) -> str:
        return str(tokenizer.apply_chat_template(messages[:count], add_generation_prompt=answer_next, tokenize=False))

    if messages[-1]["role"] != "assistant":
        return [render(len(messages), True)]
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    return [
        text for index in answers[-1 if last_only else 0 :] for text in (render(index, True), render(index + 1, False))
    ]


def _length(ids: list[list[int]], stop_ids: frozenset[int]) -> Length | None:
    """From the ids before and through each answer; None if a token crosses from one to the next (`chat` cuts it there)."""
    if any(longer[: len(shorter)] != shorter for shorter, longer in pairwise(ids)):
        return None
    if len(ids) == 1:
        return Length(len(ids[0]), 0)
    ends = [_through_stop(through, stop_ids) for through in ids[1::2]]
    return Length(ends[-1], sum(end - len(before) for before, end in zip(ids[::2], ends, strict=True)))


def _exact_length(
    messages: list[Message], row: Row, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]
) -> Length:
    if "chosen" in row:
        prompt, answer = render_answer(tokenizer, messages[:-1], messages[-1]["content"], stop_ids)
        return Length(len(prompt) + len(answer), len(answer))
    rendered = render_messages(tokenizer, messages, stop_ids)
    return Length(len(rendered.input_ids), sum(rendered.loss_mask))


def _through_stop(ids: list[int], stop_ids: frozenset[int]) -> int:
    """The number of tokens up to and with the last end-of-turn token."""
    for position in range(len(ids) - 1, -1, -1):
        if ids[position] in stop_ids:
            return position + 1
    raise BadData(
        "the chat template does not end the assistant's turn with the model's end-of-sequence token",
        "set eos_token of the tokenizer to the token that ends a turn",
    )


def drop_long(rows: Sequence[Row], lengths: Sequence[Length], max_tokens: int) -> Iterator[Row | Reject]:
    """Refuse rows of more than ``max_tokens`` tokens."""
    for row, length in zip(rows, lengths, strict=True):
        if length.total <= max_tokens:
            yield row
        else:
            detail = f"{length.total} tokens, at most {max_tokens} wanted"
            yield Reject(row["meta"]["file"], row["meta"]["line"], Reason.TOO_LONG, detail, raw_json(row))
