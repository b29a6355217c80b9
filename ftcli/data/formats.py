"""From raw rows of the usual formats to canonical rows (`ftcli.data.rows`).

A format is a set of columns. `detect` finds the one whose columns the first records have; where two fit, it says so
instead of choosing. ``prompt`` and ``text`` columns often stand beside a richer format, so they count only where
nothing else fits.

Conversion checks types and roles only; whether a text is empty is asked after cleaning (`ftcli.data.clean`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftcli.core.errors import BadData
from ftcli.data.conversations import Refused, conversation, turns, wanted_text
from ftcli.data.records import Reason, Record, Reject, raw_json
from ftcli.data.rows import Message, Row, RowType

FormatName = Literal[
    "alpaca", "sharegpt", "messages", "prompt_completion", "preference", "question_answer", "text", "prompt"
]
SAMPLE_ROWS = 200
"""How many records the format is detected from."""


@dataclass(frozen=True)
class Format:
    """``required`` columns make the format; ``optional`` ones are read if they are there."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    row_type: RowType
    convert: Callable[[dict[str, Any]], Row]

    def fits(self, value: dict[str, Any]) -> bool:
        return all(value.get(column) is not None for column in self.required)


def _alpaca(value: dict[str, Any]) -> Row:
    return {"messages": [*_alpaca_prompt(value), _answer(wanted_text(value, "output"))]}


def _alpaca_prompt(value: dict[str, Any]) -> list[Message]:
    asked = wanted_text(value, "instruction")
    context = wanted_text(value, "input", optional=True)
    history: list[Message] = []
    for pair in value.get("history") or []:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Refused(Reason.TYPE_ERROR, "history must be a list of [question, answer]")
        history += [{"role": "user", "content": pair[0]}, _answer(pair[1])]
    question = f"{asked}\n\n{context}" if context.strip() else asked
    return [*_system(value), *history, {"role": "user", "content": question}]


def _sharegpt(value: dict[str, Any]) -> Row:
    return {"messages": conversation([*_system(value), *turns(value["conversations"], "conversations")], "assistant")}


def _messages(value: dict[str, Any]) -> Row:
    return {"messages": conversation(turns(value["messages"], "messages"), "assistant")}


def _prompt_completion(value: dict[str, Any]) -> Row:
    return {"messages": conversation([*_asked(value, "prompt"), *_completion(value, "completion")], "assistant")}


def _question_answer(value: dict[str, Any]) -> Row:
    question = {"role": "user", "content": wanted_text(value, "question")}
    return {"messages": [*_system(value), question, _answer(wanted_text(value, "answer"))]}


def _text(value: dict[str, Any]) -> Row:
    return {"text": wanted_text(value, "text")}


def _prompt(value: dict[str, Any]) -> Row:
    return {"prompt": conversation(_asked(value, "prompt"), "user")}


def _preference(value: dict[str, Any]) -> Row:
    """``chosen`` and ``rejected`` are answers, or whole conversations that share a beginning, which then is the prompt."""
    chosen, rejected = (_completion(value, side) for side in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = chosen[:shared] if shared else _prompt_of(value)
    if len(chosen) != shared + 1 or len(rejected) != shared + 1:
        raise Refused(Reason.ROLE_ORDER, "chosen and rejected differ in more than their last message")
    prompt = conversation(prompt, "user")
    for side in (chosen, rejected):
        conversation([*prompt, side[-1]], "assistant")
    return {"prompt": prompt, "chosen": chosen[-1:], "rejected": rejected[-1:]}


def _prompt_of(value: dict[str, Any]) -> list[Message]:
    """The prompt of a pair, from whichever column holds it."""
    if value.get("instruction") is not None and value.get("prompt") is None:
        return _alpaca_prompt(value)
    for column in ("prompt", "conversations", "messages", "question"):
        if value.get(column) is not None:
            return _asked(value, column)
    raise Refused(Reason.MISSING_FIELD, f"no prompt; the row has {_columns(value)}")


def _asked(value: dict[str, Any], column: str) -> list[Message]:
    """The prompt in ``column``: a string, or messages."""
    if isinstance(value[column], list):
        return [*_system(value), *turns(value[column], column)]
    return [*_system(value), {"role": "user", "content": wanted_text(value, column)}]


def _completion(value: dict[str, Any], column: str) -> list[Message]:
    """The answer in ``column``: a string, one message, or messages."""
    found = value[column]
    if isinstance(found, (list, dict)):
        return turns(found if isinstance(found, list) else [found], column)
    return [_answer(wanted_text(value, column))]


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _system(value: dict[str, Any]) -> list[Message]:
    text = wanted_text(value, "system", optional=True)
    return [{"role": "system", "content": text}] if text.strip() else []


PROMPT_COLUMNS = ("prompt", "conversations", "messages", "instruction", "input", "history", "question", "system")
FORMATS: dict[str, Format] = {
    "alpaca": Format(("instruction", "output"), ("input", "history", "system"), RowType.MESSAGES, _alpaca),
    "sharegpt": Format(("conversations",), ("system",), RowType.MESSAGES, _sharegpt),
    "messages": Format(("messages",), (), RowType.MESSAGES, _messages),
    "prompt_completion": Format(("prompt", "completion"), ("system",), RowType.MESSAGES, _prompt_completion),
    "preference": Format(("chosen", "rejected"), PROMPT_COLUMNS, RowType.PREFERENCE, _preference),
    "question_answer": Format(("question", "answer"), ("system",), RowType.MESSAGES, _question_answer),
    "text": Format(("text",), (), RowType.TEXT, _text),
    "prompt": Format(("prompt",), ("system",), RowType.PROMPT, _prompt),
}
FALLBACKS = ("prompt", "text")
"""Formats whose column other formats use beside their own."""
FIELDS = tuple(dict.fromkeys(column for item in FORMATS.values() for column in (*item.required, *item.optional)))
"""Every column that some format reads: what ``map`` may name."""


def rename(record: Record, columns: Mapping[str, str]) -> Record:
    """``record`` with the source columns of ``columns`` (format's column -> source column) under the format's names."""
    if not columns:
        return record
    taken = set(columns.values())
    kept = {name: item for name, item in record.value.items() if name not in taken}
    mapped = {ours: record.value[theirs] for ours, theirs in columns.items() if theirs in record.value}
    return Record(record.file, record.line, kept | mapped)


def check_columns(sample: Sequence[Record], columns: Mapping[str, str]) -> None:
    """Raise `BadData` if a source column of ``columns`` is in no record of ``sample`` (not yet renamed)."""
    there = dict.fromkeys(name for record in sample for name in record.value)
    missing = [theirs for theirs in columns.values() if theirs not in there]
    if missing:
        raise BadData(f"no column {', '.join(missing)} for map; there are: {', '.join(there)}", "correct map")


def detect(sample: Sequence[Record], columns: Mapping[str, str] | None = None) -> FormatName:
    """The format of ``sample``: the only one whose columns at least half of the records have.

    With ``columns`` (a map given by the user) only formats that read all the mapped columns are candidates. Raises
    `BadData` that lists the candidates, or the columns if there is none.
    """
    mapped = set(columns or ())
    fitting = [
        name
        for name, item in FORMATS.items()
        if mapped <= {*item.required, *item.optional}
        and 2 * sum(item.fits(record.value) for record in sample) >= len(sample)
    ]
    strong = [name for name in fitting if name not in FALLBACKS] or fitting
    if "preference" in strong:
        strong = ["preference"]
    if len(strong) == 1:
        return strong[0]  # type: ignore[return-value]
    there = ", ".join(dict.fromkeys(name for record in sample for name in record.value))
    if strong:
        raise BadData(
            f"the rows fit the formats {', '.join(strong)} alike; their columns are: {there}",
            "say which: --format NAME",
        )
    raise BadData(
        f"no known format has these columns: {there}",
        "say which column is what, e.g. --map '{prompt: COLUMN, completion: COLUMN}'; "
        + "; ".join(f"{name} needs {'+'.join(item.required)}" for name, item in FORMATS.items()),
    )


def require_columns(sample: Sequence[Record], name: FormatName) -> None:
    """Raise `BadData` if no record of ``sample`` has the columns of format ``name``."""
    item = FORMATS[name]
    if any(item.fits(record.value) for record in sample):
        return
    there = dict.fromkeys(column for record in sample for column in record.value)
    missing = [column for column in item.required if column not in there] or item.required
    raise BadData(
        f"format {name} needs column {', '.join(missing)}; there are: {', '.join(there)}",
        f"choose another format, or --map '{{{missing[0]}: COLUMN}}'",
    )


def unused_columns(sample: Sequence[Record], name: FormatName) -> list[str]:
    """Columns of ``sample`` that format ``name`` does not read. Those of rows made by prep itself are never missed."""
    read = {*FORMATS[name].required, *FORMATS[name].optional, "id", "meta"}
    return [name for name in dict.fromkeys(name for record in sample for name in record.value) if name not in read]


def to_rows(records: Iterable[Record], name: FormatName) -> Iterator[Row | Reject]:
    """Canonical rows without ``id``; ``meta`` holds the file and line that each came from."""
    for record in records:
        try:
            row = _converted(record.value, FORMATS[name])
        except Refused as refused:
            yield Reject(record.file, record.line, refused.reason, refused.detail, raw_json(record.value))
        else:
            yield {**row, "meta": {"file": record.file, "line": record.line}}


def _converted(value: dict[str, Any], item: Format) -> Row:
    missing = [column for column in item.required if value.get(column) is None]
    if missing:
        raise Refused(Reason.MISSING_FIELD, f"no {', '.join(missing)}; the row has {_columns(value)}")
    row = item.convert(value)
    texts = [row["text"]] if "text" in row else [message["content"] for part in row.values() for message in part]
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            detail = f"character {error.start + 1} of a text is a lone surrogate or a byte that is no UTF-8"
            raise Refused(Reason.ENCODING, detail) from None
    return row


def _columns(value: dict[str, Any]) -> str:
    return ", ".join(value) or "no columns"
