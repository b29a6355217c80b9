"""Messages rows to token ids and labels; what becomes of over-long rows is chosen, and all that is lost is counted.

Imports no torch, so that the settings, which the controller reads, can name `TooLong`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ftcli.core.errors import BadData
from ftcli.data.chat import Rendered, render_messages, row_name
from ftcli.data.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that is not trained on, as `ftcli.training.loss` and PyTorch have it."""

TooLong = Literal["truncate", "truncate_left", "reject", "error"]
"""What becomes of a row of more than ``max_length`` tokens: cut from the right, cut from the left, dropped, or an error."""
Dropped = Literal["too_long", "no_answer"]
"""Why a row was dropped: longer than ``max_length``, or no token to train on is in the part that was kept."""


@dataclass(frozen=True)
class Encoded:
    """``input_ids`` and ``labels`` of each kept row, of equal length; labels are not shifted.

    ``len(rows in) == len(input_ids) + dropped``.
    """

    input_ids: list[list[int]]
    labels: list[list[int]]
    truncated: int
    """Rows longer than ``max_length``, kept without their end or beginning."""
    dropped_by: Mapping[Dropped, int]
    """Rows that are not kept, by reason."""
    labels_kept: int
    """Tokens that are trained on, once a pass."""
    labels_lost: int
    """Answer tokens that truncation took away, or that were in dropped rows."""

    @property
    def dropped(self) -> int:
        return sum(self.dropped_by.values())

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.input_ids]

    @property
    def share_lost(self) -> float:
        """Of all answer tokens, those that are lost; 0 where there are none."""
        return self.labels_lost / max(self.labels_kept + self.labels_lost, 1)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    stop_ids: frozenset[int],
    max_length: int,
    too_long: TooLong = "truncate",
) -> Encoded:
    """Render ``rows`` (messages); of those with more than ``max_length`` tokens, do with each what ``too_long`` says.

    * ``truncate`` keeps the first ``max_length`` tokens: an answer may lack its end, and its end-of-turn token.
    * ``truncate_left`` keeps the last ``max_length`` tokens, just these: what a row begins with (the beginning-of-sequence
      token, the system message, the first turns) is cut first, and the row may begin within a turn.
    * ``reject`` drops the row.
    * ``error`` raises `BadData` naming the first such row, their number and share, and the longest.

    A row whose kept part has nothing to train on is dropped too. The first token of a row is never predicted, so it has no
    label. Raises `BadData` naming the row when the chat template refuses it.
    """
    kept: list[tuple[list[int], list[int]]] = []
    lengths: list[int] = []
    truncated, before = 0, 0
    dropped_by: Counter[Dropped] = Counter()
    for row in rows:
        item = _render(tokenizer, row, stop_ids)
        ids, labels = item.input_ids, _labels(item.input_ids, item.loss_mask)
        before += _trained(labels)
        lengths.append(len(ids))
        is_long = len(ids) > max_length
        if is_long and too_long == "reject":
            dropped_by["too_long"] += 1
            continue
        if is_long:
            part = slice(-max_length, None) if too_long == "truncate_left" else slice(max_length)
            ids, labels = ids[part], _labels(ids[part], item.loss_mask[part])
        if not _trained(labels):
            dropped_by["no_answer"] += 1
            continue
        truncated += is_long
        kept.append((ids, labels))
    if too_long == "error":
        _require_short(rows, lengths, max_length)
    after = sum(_trained(labels) for _, labels in kept)
    return Encoded(
        input_ids=[ids for ids, _ in kept],
        labels=[labels for _, labels in kept],
        truncated=truncated,
        dropped_by=dict(dropped_by),
        labels_kept=after,
        labels_lost=before - after,
    )


def _labels(ids: list[int], loss_mask: list[bool]) -> list[int]:
    """The ids that are trained on; the first has nothing before it that could predict it."""
    return [
        token if is_trained and place else IGNORED
        for place, (token, is_trained) in enumerate(zip(ids, loss_mask, strict=True))
    ]


def _trained(labels: list[int]) -> int:
    return sum(label != IGNORED for label in labels)


def _require_short(rows: Sequence[Row], lengths: Sequence[int], max_length: int) -> None:
    long = [place for place, length in enumerate(lengths) if length > max_length]
    if long:
        first, longest = long[0], max(lengths)
        raise BadData(
            f"{row_name(rows[first])} has {lengths[first]} tokens, max_length is {max_length}; of {len(rows)} rows "
            f"{len(long)} ({len(long) / len(rows):.1%}) are longer than that, the longest has {longest}",
            f"--max-length {longest} takes all; --too-long truncate, truncate_left or reject says what becomes of them; "
            "or give prep a --max-length",
        )


def _render(tokenizer: PreTrainedTokenizerBase, row: Row, stop_ids: frozenset[int]) -> Rendered:
    try:
        return render_messages(tokenizer, row["messages"], stop_ids, tools=row.get("tools"))
    except BadData as error:
        raise BadData(f"{row_name(row)}: {error.message}", error.hint) from None
