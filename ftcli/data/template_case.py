"""What a chat template makes of small conversations with words of our own, and of a sample of rows; the checks read this."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ftcli.data.chat import Rendered, TemplateFault, render_messages, render_text, row_name
from ftcli.data.rows import Message, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM, ASK, ANSWER, LATER = "SYSTEMTEXT", "QUESTIONTEXT", "ANSWERTEXT", "LATERTEXT"
THOUGHT = "<think>\nTHOUGHTTEXT\n</think>\n\n"
SAMPLE_ROWS, SAME_SHAPE_ROWS = 200, 50
"""Rows that are rendered, and how many of them at most have the same order of roles."""
SHOWN_CHARS = 120

_MARKER = re.compile(r"<[|\uff5c][^\s<>|\uff5c]{1,40}[|\uff5c]>|<(?:start|end)_of_turn>|</?s>|<[be]os>")
_ROLE_LINE = re.compile(r"^\s*(?:system|developer|user|human|assistant|model)\s*:?\s*$", re.IGNORECASE)


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def quoted(text: str) -> str:
    """``text`` on one line, in quotes, with what cannot be seen spelled out; cut if long."""
    return repr(text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}\u2026")


def difference(one: str, other: str) -> tuple[str, str]:
    """Both texts around the place where they part."""
    size = min(len(one), len(other))
    place = next((at for at in range(size) if one[at] != other[at]), size)
    start = max(place - 24, 0)
    before = "\u2026" if start else ""
    return quoted(before + one[start : place + 32]), quoted(before + other[start : place + 32])


@dataclass(frozen=True)
class Hit:
    """Rows that something is the matter with, and what it is for the first of them."""

    rows: int
    of: int
    first: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.rows} of {self.of} rows looked at (first {self.first})"


@dataclass(frozen=True)
class Case:
    """A tokenizer that can render one question with its answer, and rows for it."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    generation_eos: tuple[int, ...]
    rows: Sequence[Row]

    @cached_property
    def whole(self) -> str:
        """A question and its answer."""
        return render_text(self.tokenizer, [message("user", ASK), message("assistant", ANSWER)], answer_next=False)

    @cached_property
    def prompt(self) -> str:
        """The question as generation has it."""
        return render_text(self.tokenizer, [message("user", ASK)], answer_next=True)

    @cached_property
    def header(self) -> str:
        """What is before the question."""
        return self.whole[: self.whole.index(ASK)]

    @cached_property
    def tail(self) -> str:
        """What is after the answer."""
        return self.whole[self.whole.index(ANSWER) + len(ANSWER) :]

    @cached_property
    def with_system(self) -> str | TemplateFault:
        """The question after a system message, as generation has it."""
        try:
            return render_text(self.tokenizer, [message("system", SYSTEM), message("user", ASK)], answer_next=True)
        except TemplateFault as fault:
            return fault

    @cached_property
    def markers(self) -> list[str]:
        """Control tokens in what the template writes, by their looks or because the tokenizer says so."""
        system = self.with_system if isinstance(self.with_system, str) else ""
        texts = [self.whole, self.prompt, system]
        special = [token for token in self.tokenizer.all_special_tokens if any(token in text for text in texts)]
        return list(dict.fromkeys([found for text in texts for found in _MARKER.findall(text)] + special))

    def is_split(self, marker: str) -> bool:
        """Whether the tokenizer does not have ``marker`` as one token."""
        token = self.tokenizer.convert_tokens_to_ids(marker)
        return token in (None, self.tokenizer.unk_token_id) or token not in self.ids(marker)

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=special)["input_ids"]]

    def name(self, token: int) -> str:
        word = self.tokenizer.convert_ids_to_tokens(token)
        return f"{word} (id {token})" if word is not None else f"id {token}, which the tokenizer does not have"

    def names(self, tokens: Iterable[int]) -> str:
        return ", ".join(self.name(token) for token in tokens)

    def added_text(self) -> str:
        """What the template says before the question beside control tokens and the names of roles."""
        text = self.header
        for marker in self.markers:
            text = text.replace(marker, "\n")
        return "\n".join(line for line in text.splitlines() if line.strip() and not _ROLE_LINE.match(line)).strip()

    def rewritten(self, answer: str) -> tuple[str, str] | None:
        """A turn with ``answer`` while it is the last, and once more follow, if the template writes these differently."""
        first = [message("user", ASK), message("assistant", answer)]
        more = [*first, message("user", LATER), message("assistant", LATER)]
        try:
            before, after = (render_text(self.tokenizer, part, answer_next=False) for part in (first, more))
        except TemplateFault:
            return None
        return None if after.startswith(before) else difference(before, after)

    @cached_property
    def _sample(self) -> list[tuple[Row, Rendered | TemplateFault]]:
        found: list[tuple[Row, Rendered | TemplateFault]] = []
        for row in sample(self.rows):
            try:
                found.append((row, render_messages(self.tokenizer, row["messages"], self.stop_ids, row.get("tools"))))
            except TemplateFault as fault:
                found.append((row, fault))
        return found

    @cached_property
    def rendered(self) -> list[Rendered]:
        """The rows of the sample that can be rendered."""
        return [item for _, item in self._sample if isinstance(item, Rendered)]

    @cached_property
    def faults(self) -> dict[str, Hit]:
        """Of the rows of the sample that cannot be rendered, why: by the name of the fault."""
        found: dict[str, list[tuple[Row, TemplateFault]]] = {}
        for row, item in self._sample:
            if isinstance(item, TemplateFault) and not (item.name == "refused" and self._has_refused_system(row)):
                found.setdefault(item.name, []).append((row, item))
        return {
            name: Hit(len(hits), len(self._sample), row_name(hits[0][0]), hits[0][1].message, hits[0][1].hint)
            for name, hits in found.items()
        }

    def _has_refused_system(self, row: Row) -> bool:
        return isinstance(self.with_system, TemplateFault) and has_system(row)

    @cached_property
    def control_tokens_in_rows(self) -> Hit | None:
        """Rows with a control token of the template within a message's text."""
        tokens = [self.tokenizer.bos_token, self.tokenizer.eos_token, *self.markers]
        words = [word for word in dict.fromkeys(tokens) if word and word.strip() and not self.is_split(word)]
        hits = [(row, word) for row in self.rows if (word := _first_within(row, words))]
        return Hit(len(hits), len(self.rows), row_name(hits[0][0]), hits[0][1]) if hits else None


def has_system(row: Row) -> bool:
    return any(item["role"] == "system" for item in row["messages"])


def _first_within(row: Row, words: Sequence[str]) -> str | None:
    return next((word for item in row["messages"] for word in words if word in item["content"]), None)


def sample(rows: Sequence[Row]) -> list[Row]:
    """The first rows of each order of roles, with and without tools and thinking, at most `SAMPLE_ROWS` in all."""
    chosen: list[Row] = []
    seen: dict[object, int] = {}
    for row in rows:
        shape = (
            tuple(item["role"] for item in row["messages"]),
            "tools" in row,
            any("</think>" in item["content"] for item in row["messages"]),
        )
        seen[shape] = seen.get(shape, 0) + 1
        if seen[shape] <= SAME_SHAPE_ROWS:
            chosen.append(row)
        if len(chosen) == SAMPLE_ROWS:
            break
    return chosen
