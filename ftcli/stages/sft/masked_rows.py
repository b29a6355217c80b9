"""Rows as training sees them, token by token, and how they are printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ftcli.core.errors import BadData
from ftcli.data.chat import row_name
from ftcli.data.rows import Row
from ftcli.data.template_doctor import Finding
from ftcli.stages.prep.report.text import counted
from ftcli.stages.sft.encode import IGNORED, Dropped, Encoded, TooLong, encode
from ftcli.training.collate import collator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE, LINE_BREAK = "\u27e6", "\u27e7", "\u21b5"
SPELLED = frozenset((OPEN, CLOSE, LINE_BREAK, "\u27e8"))
"""Characters of a row's text that would be taken for marks of ours."""
WHY: dict[Dropped, str] = {"too_long": "longer than max_length", "no_answer": "no answer is left"}
GREEN, PLAIN = "\x1b[1;32m", "\x1b[0m"


@dataclass(frozen=True)
class Seen:
    """A row as the collator hands it to training, without its padding; without tokens where it is dropped or refused."""

    name: str
    encoded: Encoded | None = None
    refusal: str = ""
    """Why the row cannot be encoded."""
    ids: Sequence[int] = ()
    is_trained: Sequence[bool] = ()
    pieces: Sequence[str] = ()
    """What the vocabulary calls each token."""
    parts: Sequence[tuple[str, bool]] = ()
    """The text, parted where training begins or ends."""

    @property
    def is_kept(self) -> bool:
        return self.encoded is not None and bool(self.encoded.input_ids)

    @property
    def lost(self) -> int:
        return self.encoded.labels_lost if self.encoded else 0

    @property
    def dropped(self) -> Dropped | None:
        return next(iter(self.encoded.dropped_by), None) if self.encoded else None

    def to_json(self, *, with_ids: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "row": self.name,
            "tokens": len(self.ids),
            "trained": sum(self.is_trained),
            "trained_share": sum(self.is_trained) / max(len(self.ids), 1),
            "truncated": bool(self.encoded and self.encoded.truncated),
            "trained_lost": self.lost,
            "dropped": self.dropped,
            "refused": self.refusal or None,
            "parts": [{"text": text, "is_trained": trained} for text, trained in self.parts],
        }
        return found | ({"input_ids": self.ids, "is_trained": self.is_trained} if with_ids else {})


def seen_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    stop_ids: frozenset[int],
    max_length: int,
    too_long: TooLong,
) -> list[Seen]:
    """``rows`` through the steps of training: encoded, put into one batch, and read back from its tensors."""
    if too_long == "error":  # which is about all rows; of one there is only to say that it is too long
        too_long = "reject"
    seen: list[Seen] = []
    kept: list[dict[str, list[int]]] = []
    for row in rows:
        name = row_name(row)
        try:
            encoded = encode(tokenizer, [row], stop_ids, max_length, too_long)
        except BadData as error:
            seen.append(Seen(name, refusal=error.message.removeprefix(f"{name}: ")))
            continue
        seen.append(Seen(name, encoded))
        if encoded.input_ids:
            kept.append({"input_ids": encoded.input_ids[0], "labels": encoded.labels[0]})
    batch = iter(_unpadded(collator(tokenizer)(kept)) if kept else [])
    return [_with_text(tokenizer, row, *next(batch)) if row.is_kept else row for row in seen]


def _unpadded(batch: Any) -> list[tuple[list[int], list[bool]]]:
    """Of each row of a batch, the ids where its attention mask is 1, and whether each has a label."""
    masks = [mask.bool() for mask in batch["attention_mask"]]
    columns = zip(batch["input_ids"], batch["labels"], masks, strict=True)
    return [(ids[mask].tolist(), (labels[mask] != IGNORED).tolist()) for ids, labels, mask in columns]


def _with_text(tokenizer: PreTrainedTokenizerBase, row: Seen, ids: list[int], is_trained: list[bool]) -> Seen:
    parts: list[tuple[str, bool]] = []
    done, end = "", 0
    for trained, group in groupby(is_trained):
        end += len(list(group))
        text = str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        parts.append((text[len(done) :], trained))
        done = text
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    return replace(row, ids=ids, is_trained=is_trained, pieces=pieces, parts=parts)


def lines_of(
    findings: Sequence[Finding],
    total: Encoded | None,
    seen: Sequence[Seen],
    looked_at: int,
    notes: list[str],
    *,
    colour: bool,
    with_ids: bool,
) -> Iterator[str]:
    yield from (f"input: {visible(note)}" for note in notes)
    counts = Counter(item.level for item in findings)
    found = ", ".join(counted(counts[level], level) for level in ("error", "warning", "note") if counts[level])
    yield f"The chat template, with {counted(looked_at, 'row')}: {found or 'nothing to say'}"
    for item in findings:
        yield f"{item.level}: {item.name}: {visible(item.seen)}"
        yield f"    {visible(item.fix)}"
    if total:
        yield f"All together: {_sum(looked_at, total)}"
    for row in seen:
        yield ""
        yield visible(f"{row.name}: {_figures(row)}")
        if with_ids:
            yield from _token_lines(row, colour=colour)
        elif row.ids:
            yield "".join(_marked(text, trained, colour=colour) for text, trained in row.parts)


def _sum(rows: int, total: Encoded) -> str:
    tokens = sum(total.lengths)
    text = f"{counted(len(total.input_ids), 'row')}, {counted(tokens, 'token')}, {total.labels_kept / max(tokens, 1):.1%} trained"
    if not (total.truncated or total.dropped):
        return text
    why = "".join(f", {count} dropped ({WHY[reason]})" for reason, count in total.dropped_by.items())
    return f"{text}; of {counted(rows, 'row')} {total.truncated} cut{why}, {total.share_lost:.1%} of answer tokens lost"


def _figures(row: Seen) -> str:
    """``120 tokens, 40 trained (33.3%)`` and what was lost."""
    lost = f"{counted(row.lost, 'token')} of its answers lost"
    if row.refusal:
        return f"refused: {row.refusal}"
    if row.dropped:
        return f"dropped, {WHY[row.dropped]}; {lost}"
    trained = sum(row.is_trained)
    cut = f"; cut to max_length, {lost}" if row.encoded and row.encoded.truncated else ""
    return f"{counted(len(row.ids), 'token')}, {trained} trained ({trained / len(row.ids):.1%}){cut}"


def _token_lines(row: Seen, *, colour: bool) -> Iterator[str]:
    for place, (token, trained, piece) in enumerate(zip(row.ids, row.is_trained, row.pieces, strict=True)):
        yield f"{place:>6} {token:>8}  {_marked(piece, trained, colour=colour)}"


def _marked(text: str, trained: bool, *, colour: bool) -> str:
    if not trained:
        return visible(text)
    return f"{GREEN}{visible(text)}{PLAIN}" if colour else f"{OPEN}{visible(text)}{CLOSE}"


def visible(text: str) -> str:
    """``text`` with what cannot be seen, can reorder a line, or looks like a mark of ours spelled as its code.

    A line break is shown by a sign and made. Backslashes stay as they are, so that code can be read.
    """
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char == "\n":
        return f"{LINE_BREAK}\n"
    return char if char.isprintable() and char not in SPELLED else f"\u27e8U+{ord(char):04X}\u27e9"
