"""How long rows are, in characters and in a model's tokens, and how to make them shorter.

Tokens are counted on the strings that the chat template writes, as `ftcli.data.chat` has them: a batch of rows is rendered in two
calls, each conversation is encoded once (what all begin with, once for all), and the answers are found by their character offsets.
Where a token crosses the beginning or end of an answer, `chat` itself counts, as it does for tool calls and for tokenizers without
offsets. The first row always goes through `chat`, so a model whose template cannot be trained on is refused here and not later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from ftcli.core.errors import BadData
from ftcli.data.chat import render_messages, render_prompt
from ftcli.data.records import Reason, Refused
from ftcli.data.rows import Message, Row
from ftcli.data.tool_calls import calls_tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_ROWS = 1000
TRIES = 4

_Rendered = tuple[str, list[tuple[int, int]] | None]
"""A conversation as the template writes it, and where each answer begins and its turn ends, in characters.

None instead of these places where the template writes earlier turns differently once more follow; `chat` refuses that.
"""


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of one row: all up to the end of the last answer, and those of them that a loss counts."""

    total: int
    trained: int


def characters(prompt: str, answer: str) -> Length:
    """The length in characters of a row with this `prompt_text` and `answer_text` (of several candidates, all of them)."""
    return Length(len(prompt) + len(answer), len(answer))


def measure(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> Iterator[Length]:
    """The length of each row under the tokenizer's chat template; of several answers to one prompt, that of the longest.

    Raises `BadData` if the template refuses a row or does not end an answer with one of ``stop_ids``.
    """
    if rows and "text" not in rows[0]:
        _exact(_conversations(rows[0])[0], rows[0], tokenizer, stop_ids)
    for start in range(0, len(rows), BATCH_ROWS):
        yield from _measured(rows[start : start + BATCH_ROWS], tokenizer, stop_ids)


def _measured(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> list[Length]:
    """The lengths of ``rows``: of all together or, where one is refused, one by one, so that the first such row is named."""
    try:
        return _together(rows, tokenizer, stop_ids)
    except (BadData, TemplateError) as error:
        if len(rows) > 1:
            return [length for row in rows for length in _measured([row], tokenizer, stop_ids)]
        if isinstance(error, BadData):
            raise
        raise BadData(
            f"{_place(rows[0])}: the model's chat template refuses the row: {error}",
            "use another model, or drop such rows",
        ) from None


def _together(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> list[Length]:
    found: list[list[Length]] = [[] for _ in rows]
    texts = [place for place, row in enumerate(rows) if "text" in row]
    encodings = _encode(tokenizer, [rows[place]["text"] for place in texts], offsets=False)
    for place, encoding in zip(texts, encodings, strict=True):
        found[place].append(Length(len(encoding), len(encoding)))
    talks: list[tuple[int, list[Message]]] = []
    for place, row in enumerate(rows):
        for messages in _conversations(row):
            begins_with_answer = messages[0]["role"] == "assistant"  # nothing to render before it
            if tokenizer.is_fast and not (begins_with_answer or "tools" in row or calls_tools(messages)):
                talks.append((place, messages))
            else:
                found[place].append(_exact(messages, row, tokenizer, stop_ids))
    shared, rendered = _apart(tokenizer, _render(tokenizer, [messages for _, messages in talks]))
    encodings = _encode(tokenizer, [text for text, _ in rendered], offsets=any(spans for _, spans in rendered))
    for (place, messages), (text, spans), encoding in zip(talks, rendered, encodings, strict=True):
        if spans and "messages" not in rows[place]:
            spans = spans[-1:]
        length = None if spans is None else _length(encoding, spans, len(text), stop_ids)
        if length:
            found[place].append(Length(shared + length.total, length.trained))
        else:
            found[place].append(_exact(messages, rows[place], tokenizer, stop_ids))
    return [max(lengths, key=lambda length: length.total) for lengths in found]


def _render(tokenizer: PreTrainedTokenizerBase, talks: Sequence[list[Message]]) -> list[_Rendered]:
    parts = [_parts(messages) for messages in talks]
    texts: dict[bool, Iterator[Any]] = {}
    for answer_next in (False, True):
        batch = [messages for talk in parts for messages, wanted in talk if wanted is answer_next]
        if batch:  # in one call, as a call for each costs half as much again
            texts[answer_next] = iter(
                tokenizer.apply_chat_template(batch, add_generation_prompt=answer_next, tokenize=False)
            )
    rendered: list[_Rendered] = []
    for talk in parts:
        written = [next(texts[answer_next]) for _, answer_next in talk]
        whole, ends = written[-1], [len(text) for text in written]
        is_kept = all(whole.startswith(text) for text in written)
        rendered.append((whole, list(zip(ends[::2], ends[1::2], strict=False)) if is_kept else None))
    return rendered


def _parts(messages: list[Message]) -> list[tuple[list[Message], bool]]:
    """What to render, and whether an answer comes next: the messages before and through each answer, so the whole last."""
    if messages[-1]["role"] != "assistant":
        return [(messages, True)]
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    return [part for place in answers for part in ((messages[:place], True), (messages[: place + 1], False))]


def _apart(tokenizer: PreTrainedTokenizerBase, rendered: list[_Rendered]) -> tuple[int, list[_Rendered]]:
    """How many tokens all texts begin with, as with one system message, and the texts and places without these.

    They end where a special token begins: tokenizers part a text there before all else, which is tried on one text.
    """
    if len(rendered) < 2:
        return 0, rendered
    texts = [text for text, _ in rendered]
    first, last = min(texts), max(texts)  # what these two share, all share
    end = min([len(first), *(spans[0][0] for _, spans in rendered if spans)])
    end = next((place for place in range(end) if first[place] != last[place]), end)
    cut = max([0, *(first.rfind(token, 0, end) for token in tokenizer.all_special_tokens)])
    head, tail, whole = (it.ids for it in _encode(tokenizer, [first[:cut], first[cut:], first], offsets=False))
    if head + tail != whole:
        return 0, rendered
    return len(head), [
        (text[cut:], spans and [(start - cut, stop - cut) for start, stop in spans]) for text, spans in rendered
    ]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, offsets: bool) -> list[Any]:
    """One encoding a text, without ``offsets`` in less time; a list of ids where the tokenizer has none."""
    if not texts:
        return []
    if not tokenizer.is_fast:
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    backend = tokenizer.backend_tokenizer
    encode = backend.encode_batch if offsets else backend.encode_batch_fast
    return list(encode(texts, add_special_tokens=False))


def _length(encoding: Any, spans: list[tuple[int, int]], size: int, stop_ids: frozenset[int]) -> Length | None:
    """From character spans of the answers in a text of ``size``; None where no token begins at the border of one."""
    total, trained = len(encoding), 0
    ids = encoding.ids if spans else []
    for start, stop in spans:
        first = _token_at(encoding, start)
        last = len(ids) if stop == size else _token_at(encoding, stop)
        if first is None or last is None:
            return None
        end = next((place + 1 for place in range(last - 1, first - 1, -1) if ids[place] in stop_ids), 0)
        if not end:
            return None  # `chat` says what is wrong
        total, trained = end, trained + end - first
    return Length(total, trained)


def _token_at(encoding: Any, place: int) -> int | None:
    """The first token of the character at ``place``, if it begins there; None too beside a character without token.

    Some tokenizers leave the space before a word out of its offsets, so whether the word's token has it cannot be seen.
    """
    token: int | None = encoding.char_to_token(place)
    if token is None or (place and encoding.char_to_token(place - 1) is None):
        return None
    return token if encoding.token_to_chars(token)[0] == place else None


def _conversations(row: Row) -> list[list[Message]]:
    if "text" in row:
        return []
    if "messages" in row:
        return [row["messages"]]
    if "chosen" in row:
        return [[*row["prompt"], *row[side]] for side in ("chosen", "rejected")]
    if "completion" in row:
        return [[*row["prompt"], *row["completion"]]]
    if "candidates" in row:
        return [[*row["prompt"], {"role": "assistant", "content": item["content"]}] for item in row["candidates"]]
    return [row["prompt"]]


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
