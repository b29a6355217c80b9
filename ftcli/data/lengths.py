"""How long rows are, in characters and in a model's tokens, and how to make them shorter.

Tokens are counted on the strings that `ftcli.data.chat` renders, each conversation encoded once, in batches, with the answers
found by their character offsets. Where a token crosses the beginning or end of an answer, `chat` itself counts, as it does for
tool calls and for tokenizers without offsets. The first row always goes through `chat`, so a model whose template cannot be
trained on is refused here and not after an hour of training.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from ftcli.core.errors import BadData
from ftcli.data.chat import render_messages, render_prompt
from ftcli.data.records import Reason, Refused
from ftcli.data.rows import Message, Row
from ftcli.data.texts import answer_text, prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_ROWS = 1000
TRIES = 4


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of one row: all up to the end of the last answer, and those of them that a loss counts."""

    total: int
    trained: int


def characters(row: Row) -> Length:
    """The length of a row in characters: prompt and answers (of several candidates, all of them)."""
    answer = len(answer_text(row))
    return Length(len(prompt_text(row)) + answer, answer)


def measure(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> Iterator[Length]:
    """The length of each row under the tokenizer's chat template; of several answers to one prompt, that of the longest.

    Raises `BadData` if the template refuses a row or does not end an answer with one of ``stop_ids``.
    """
    if rows and "text" not in rows[0]:
        _exact(_conversations(rows[0])[0], rows[0], tokenizer, stop_ids)
    for start in range(0, len(rows), BATCH_ROWS):
        yield from _measure_batch(rows[start : start + BATCH_ROWS], tokenizer, stop_ids)


def _measure_batch(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]
) -> Iterator[Length]:
    found: list[list[Length]] = [[] for _ in rows]
    owners, wholes, cuts, talks = [], [], [], []
    for place, row in enumerate(rows):
        if "text" in row:
            owners.append(place)
            wholes.append(row["text"])
            cuts.append([])
            talks.append(None)
            continue
        for messages in _conversations(row):
            if not tokenizer.is_fast or _calls_tools(row, messages):
                found[place].append(_exact(messages, row, tokenizer, stop_ids))
                continue
            whole, spans = _spans(messages, row, tokenizer)
            owners.append(place)
            wholes.append(whole)
            cuts.append(spans[-1:] if "messages" not in row else spans)
            talks.append(messages)
    encodings = _encode(tokenizer, wholes)
    for place, encoding, spans, talk in zip(owners, encodings, cuts, talks, strict=True):
        if talk is None:
            found[place].append(Length(len(encoding), len(encoding)))
        else:
            length = _length(encoding, spans, stop_ids)
            found[place].append(length or _exact(talk, rows[place], tokenizer, stop_ids))
    for lengths in found:
        yield max(lengths, key=lambda length: length.total)


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Any]:
    """One encoding a text: with offsets where the tokenizer has them, else a list of ids."""
    if not texts:
        return []
    if tokenizer.is_fast:
        return list(tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False))
    return list(tokenizer(texts, add_special_tokens=False)["input_ids"])


def _length(encoding: Any, spans: list[tuple[int, int]], stop_ids: frozenset[int]) -> Length | None:
    """From character spans of the answers; None where a token crosses the border of one."""
    ids, offsets = encoding.ids, encoding.offsets
    starts = [start for start, _ in offsets]
    total, trained = len(ids), 0
    for start, stop in spans:
        first, last = bisect_left(starts, start), bisect_left(starts, stop)
        if (first and offsets[first - 1][1] > start) or (last and offsets[last - 1][1] > stop):
            return None
        end = next((place + 1 for place in range(last - 1, first - 1, -1) if ids[place] in stop_ids), 0)
        if not end:
            return None  # `chat` says what is wrong
        total, trained = end, trained + end - first
    return Length(total, trained)


def _conversations(row: Row) -> list[list[Message]]:
    if "messages" in row:
        return [row["messages"]]
    if "chosen" in row:
        return [[*row["prompt"], *row[side]] for side in ("chosen", "rejected")]
    if "completion" in row:
        return [[*row["prompt"], *row["completion"]]]
    if "candidates" in row:
        return [[*row["prompt"], {"role": "assistant", "content": item["content"]}] for item in row["candidates"]]
    return [row["prompt"]]


def _calls_tools(row: Row, messages: list[Message]) -> bool:
    return "tools" in row or any("tool_calls" in message or message["role"] == "tool" for message in messages)


def _spans(messages: list[Message], row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[tuple[int, int]]]:
    """The rendered conversation and where each answer begins and its turn ends, in characters."""

    def render(count: int, *, answer_next: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(messages[:count], add_generation_prompt=answer_next, tokenize=False)
            )
        except TemplateError as error:
            raise BadData(
                f"{_place(row)}: the model's chat template refuses the row: {error}",
                "use another model, or drop such rows",
            ) from None

    if messages[-1]["role"] != "assistant":
        return render(len(messages), answer_next=True), []
    whole = render(len(messages), answer_next=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before = render(index, answer_next=True)
            through = whole if index == len(messages) - 1 else render(index + 1, answer_next=False)
            if not whole.startswith(before) or not whole.startswith(through):
                _exact(messages, row, tokenizer, frozenset())  # says what is wrong with the template
            spans.append((len(before), len(through)))
    return whole, spans


def _exact(messages: list[Message], row: Row, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> Length:
    try:
        if messages[-1]["role"] != "assistant":
            return Length(len(render_prompt(tokenizer, messages, tools=row.get("tools"))), 0)
        rendered = render_messages(tokenizer, messages, stop_ids, tools=row.get("tools"))
    except BadData as error:
        raise BadData(f"{_place(row)}: {error.message}", error.hint) from None
    trained = rendered.loss_mask
    if "messages" not in row:  # only the last answer is
        first = len(trained) - next((place for place, on in enumerate(reversed(trained)) if not on), len(trained))
        return Length(len(trained), len(trained) - first)
    return Length(len(trained), sum(trained))


def _place(row: Row) -> str:
    return f"{row['meta']['file']}:{row['meta']['line']}" if "meta" in row else "row"


def truncated(row: Row, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int], limit: int) -> tuple[Row, Length]:
    """``row`` with the end of its last answer cut so that it has at most ``limit`` tokens, and its new length.

    Raises `Refused` where the prompt alone is as long, so that no answer would be left to train on.
    """
    for _ in range(TRIES):  # a cut text may encode to a token more than the part that was cut out of it
        length = next(measure([row], tokenizer, stop_ids))
        if length.total <= limit:
            return row, length
        shorter = _cut(row, tokenizer, stop_ids, limit)
        if shorter is None:
            break
        row = shorter
    raise Refused(
        Reason.NO_TRAINABLE_TOKENS, f"the prompt alone takes {length.total - length.trained} of {limit} tokens"
    )


def _cut(row: Row, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int], limit: int) -> Row | None:
    """``row`` with each answer that makes it too long cut by as many tokens as are too many; None if one would be empty."""

    def shortened(text: str, tokens: int) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return str(tokenizer.decode(ids[: max(len(ids) - tokens, 0)])).rstrip("\ufffd ")

    if "text" in row:
        text = shortened(row["text"], next(measure([row], tokenizer, stop_ids)).total - limit)
        return {**row, "text": text} if text.strip() else None
    changed: dict[str, Any] = {}
    for part in ("messages", "chosen", "rejected", "completion", "candidates"):
        for place in _places(row, part):
            items = changed.get(part, row[part])
            alone = (
                {"messages": items} if part == "messages" else {"prompt": row["prompt"], "completion": items[place:]}
            )
            if part == "candidates":
                alone["completion"] = [{"role": "assistant", "content": items[place]["content"]}]
            excess = next(measure([alone], tokenizer, stop_ids)).total - limit
            if excess > 0:
                content = shortened(items[place]["content"], excess)
                if not content.strip():
                    return None
                changed[part] = [*items]
                changed[part][place] = {**items[place], "content": content}
    return {**row, **changed} if changed else None


def _places(row: Row, part: str) -> Sequence[int]:
    """Which items of ``part`` are answers that a loss counts to their end."""
    if part not in row:
        return ()
    return range(len(row[part])) if part == "candidates" else (-1,)
