"""The known formats of raw rows: which columns make each, and how its rows become canonical (`ftcli.data.rows`).

Conversion checks types and roles only; whether a text is empty is asked after cleaning (`ftcli.data.clean`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftcli.data.conversations import conversation, turns, without_tools
from ftcli.data.rankings import COLUMNS as CANDIDATES
from ftcli.data.rankings import candidates_of
from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.rows import Message, Row, RowType
from ftcli.data.shapes import has_shape
from ftcli.data.tool_calls import tools_of
from ftcli.data.transcripts import is_transcript, read_prompt, read_transcript
from ftcli.data.values import as_label, kind_of, wanted_text

FormatName = Literal[
    "alpaca",
    "sharegpt",
    "messages",
    "prompt_completion",
    "question_answer",
    "preference",
    "ranking",
    "unpaired",
    "text",
    "prompt",
]
Value = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A row has the format if all columns of one of ``required`` are there; ``optional`` ones are read if they are there.

    Of two formats that fit the same rows, the one of lower ``tier`` is meant: its columns say more.
    """

    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    row_type: RowType
    convert: Callable[[Value, RowNotes], Row]
    tier: int

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the format reads."""
        return tuple(dict.fromkeys([name for names in self.required for name in names] + list(self.optional)))

    def fits(self, value: Value) -> bool:
        """Whether ``value`` has the columns, with values of the right kind."""
        for names in self.required:
            for name in names:
                if value.get(name) is None or not has_shape(value, name):
                    break
            else:
                return True
        return False

    def missing(self, value: Value) -> list[str]:
        """What ``value`` lacks of the columns that it has most of; an empty list if it lacks nothing."""
        least: list[str] | None = None
        for names in self.required:
            lacking = [name for name in names if value.get(name) is None]
            if least is None or len(lacking) < len(least):
                least = lacking
            if not least:
                break
        return least or []


def _alpaca(value: Value, notes: RowNotes) -> Row:
    return {"messages": [*_alpaca_prompt(value, notes), _answer(wanted_text(value, "output", notes))]}


def _alpaca_prompt(value: Value, notes: RowNotes) -> list[Message]:
    asked = wanted_text(value, "instruction", notes)
    context = wanted_text(value, "input", notes, optional=True)
    history: list[Message] = []
    for pair in value.get("history") or []:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Refused(Reason.TYPE_ERROR, "history must be a list of [question, answer]")
        history += [_user(pair[0]), _answer(pair[1])]
    question = f"{asked}\n\n{context}" if context.strip() else asked
    return [*_system(value, notes), *history, _user(question)]


def _sharegpt(value: Value, notes: RowNotes) -> Row:
    return _conversation(_asked(value, "conversations", notes), value)


def _messages(value: Value, notes: RowNotes) -> Row:
    return _conversation(_asked(value, "messages", notes), value)


def _prompt_completion(value: Value, notes: RowNotes) -> Row:
    return _conversation([*_asked(value, "prompt", notes), *_answers(value, "completion", notes)], value)


def _question_answer(value: Value, notes: RowNotes) -> Row:
    question, answer = (wanted_text(value, column, notes) for column in ("question", "answer"))
    return {"messages": [*_system(value, notes), _user(question), _answer(answer)]}


def _conversation(messages: list[Message], value: Value) -> Row:
    return {"messages": conversation(messages, "assistant"), **_tools(value)}


def _text(value: Value, notes: RowNotes) -> Row:
    return {"text": wanted_text(value, "text", notes)}


def _prompt(value: Value, notes: RowNotes) -> Row:
    return {"prompt": conversation(_asked(value, "prompt", notes), "user", "tool"), **_tools(value)}


def _preference(value: Value, notes: RowNotes) -> Row:
    """``chosen`` and ``rejected`` are answers, or whole conversations that share a beginning, which then is the prompt."""
    chosen, rejected = (_side(value, column, notes) for column in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if len(chosen) != shared + 1 or len(rejected) != shared + 1:
        raise Refused(Reason.ROLE_ORDER, "chosen and rejected differ in more than their last message")
    prompt = chosen[:shared]
    if not prompt or prompt[0]["role"] == "assistant":
        prompt = [*_prompt_of(value, notes), *prompt]
    elif prompt[0]["role"] != "system":
        prompt = [*_system(value, notes), *prompt]
    for side in (chosen, rejected):
        conversation(without_tools([*prompt, side[-1]], "preference"), "assistant")
    return {"prompt": prompt, "chosen": chosen[-1:], "rejected": rejected[-1:]}


def _ranking(value: Value, notes: RowNotes) -> Row:
    prompt = conversation(without_tools(_prompt_of(value, notes), "ranking"), "user")
    return {"prompt": prompt, "candidates": candidates_of(value, notes)}


def _unpaired(value: Value, notes: RowNotes) -> Row:
    """One answer that is good or bad: a completion, or the end of a conversation."""
    column = next(name for name in LABELS if value.get(name) is not None)
    label = as_label(value[column])
    if label is None:
        found = repr(value[column]) if isinstance(value[column], (str, int, float)) else kind_of(value[column])
        raise Refused(Reason.TYPE_ERROR, f"{column} is {found}, true or false needed")
    conversations = [name for name in ("messages", "conversations") if value.get(name) is not None]
    if value.get("prompt") is not None and value.get("completion") is not None:
        messages = [*_asked(value, "prompt", notes), *_answers(value, "completion", notes)]
    elif conversations:
        messages = _asked(value, conversations[0], notes)
    else:
        messages = [*_alpaca_prompt(value, notes), _answer(wanted_text(value, "output", notes))]
    conversation(without_tools(messages, "unpaired"), "assistant")
    return {"prompt": messages[:-1], "completion": messages[-1:], "label": label}


def _prompt_of(value: Value, notes: RowNotes) -> list[Message]:
    """The prompt of several answers, from whichever column holds it."""
    if value.get("instruction") is not None and value.get("prompt") is None:
        return _alpaca_prompt(value, notes)
    for column in ("prompt", "conversations", "messages", "question"):
        if value.get(column) is not None:
            return _asked(value, column, notes)
    raise Refused(Reason.MISSING_FIELD, f"no prompt; the row has {columns_of(value)}")


def _asked(value: Value, column: str, notes: RowNotes) -> list[Message]:
    """The messages in ``column``, after those of ``system``: a list of them, a transcript, or the user's text."""
    found = value[column]
    if isinstance(found, list) or column in ("messages", "conversations"):
        messages = turns(found, column, notes)
    elif is_transcript(found):
        messages = read_prompt(found)
    else:
        messages = [_user(wanted_text(value, column, notes))]
    return [*_system(value, notes), *messages]


def _answers(value: Value, column: str, notes: RowNotes) -> list[Message]:
    """The answer in ``column``: a text, one message, or messages."""
    found = value[column]
    if isinstance(found, (list, dict)):
        return turns(found if isinstance(found, list) else [found], column, notes)
    return [_answer(wanted_text(value, column, notes))]


def _side(value: Value, column: str, notes: RowNotes) -> list[Message]:
    """One side of a pair. Transcripts are read as such only where they hold the prompt too, as answers may quote some."""
    if value.get("prompt") is None and is_transcript(value["chosen"]) and is_transcript(value["rejected"]):
        return read_transcript(value[column])
    return _answers(value, column, notes)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _system(value: Value, notes: RowNotes) -> list[Message]:
    text = wanted_text(value, "system", notes, optional=True)
    return [{"role": "system", "content": text}] if text.strip() else []


def _tools(value: Value) -> Row:
    found = tools_of(value)
    return {"tools": found} if found else {}


def columns_of(value: Value) -> str:
    return ", ".join(value) or "no columns"


PROMPTS = ("prompt", "conversations", "messages", "instruction", "question")
PROMPT_COLUMNS = (*PROMPTS, "input", "history", "system")
TOOLS = ("tools", "functions")
LABELS = ("kto_tag", "label")
UNPAIRED = tuple(
    (*columns, label)
    for label in reversed(LABELS)
    for columns in (("prompt", "completion"), ("messages",), ("conversations",), ("instruction", "output"))
    if (columns, label) != (("instruction", "output"), "label")  # there, a label is more often a class
)
FORMATS: dict[str, Format] = {
    "alpaca": Format((("instruction", "output"),), ("input", "history", "system"), RowType.MESSAGES, _alpaca, 1),
    "sharegpt": Format((("conversations",),), ("system", *TOOLS), RowType.MESSAGES, _sharegpt, 1),
    "messages": Format((("messages",),), ("system", *TOOLS), RowType.MESSAGES, _messages, 1),
    "prompt_completion": Format(
        (("prompt", "completion"),), ("system", *TOOLS), RowType.MESSAGES, _prompt_completion, 1
    ),
    "question_answer": Format((("question", "answer"),), ("system",), RowType.MESSAGES, _question_answer, 1),
    "preference": Format((("chosen", "rejected"),), PROMPT_COLUMNS, RowType.PREFERENCE, _preference, 0),
    "ranking": Format(
        tuple((answers, prompt) for answers in CANDIDATES for prompt in PROMPTS),
        ("ranks", "scores", *PROMPT_COLUMNS),
        RowType.RANKING,
        _ranking,
        0,
    ),
    "unpaired": Format(
        UNPAIRED,
        ("input", "history", "system"),
        RowType.UNPAIRED,
        _unpaired,
        0,
    ),
    "text": Format((("text",),), (), RowType.TEXT, _text, 2),
    "prompt": Format((("prompt",),), ("system", *TOOLS), RowType.PROMPT, _prompt, 2),
}
FIELDS = tuple(dict.fromkeys(column for item in FORMATS.values() for column in item.columns))
"""Every column that some format reads: what ``map`` may name."""
