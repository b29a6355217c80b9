"""Messages rows to token ids and labels, with what was cut or dropped counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError

from ftcli.core.errors import BadData
from ftcli.data.chat import Rendered, render_messages
from ftcli.data.rows import Row
from ftcli.training.loss import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """``input_ids`` and ``labels`` of each kept row, of equal length; labels are not shifted."""

    input_ids: list[list[int]]
    labels: list[list[int]]
    truncated: int
    """Rows longer than ``max_length``, kept without their end."""
    dropped: int
    """Rows whose answer lies wholly after ``max_length``."""
    labels_kept: int
    """Tokens that are trained on, once a pass."""
    labels_lost: int
    """Answer tokens that truncation took away."""

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.input_ids]


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], stop_ids: frozenset[int], max_length: int
) -> Encoded:
    """Render ``rows`` (messages) and cut each from the right to ``max_length`` tokens.

    Raises `BadData` naming the row when the chat template refuses it.
    """
    ids, labels, truncated, lost = [], [], 0, 0
    for row in rows:
        rendered = _render(tokenizer, row, stop_ids)
        kept = [
            token if trained else IGNORED for token, trained in zip(rendered.input_ids, rendered.loss_mask, strict=True)
        ]
        kept = kept[:max_length]
        truncated += len(rendered.input_ids) > max_length
        lost += sum(rendered.loss_mask[max_length:])
        if any(label != IGNORED for label in kept[1:]):  # the first token is never predicted
            ids.append(rendered.input_ids[:max_length])
            labels.append(kept)
    dropped = len(rows) - len(ids)
    return Encoded(
        input_ids=ids,
        labels=labels,
        truncated=truncated - dropped,
        dropped=dropped,
        labels_kept=sum(label != IGNORED for row in labels for label in row),
        labels_lost=lost,
    )


def _render(tokenizer: PreTrainedTokenizerBase, row: Row, stop_ids: frozenset[int]) -> Rendered:
    try:
        return render_messages(tokenizer, row["messages"], stop_ids, tools=row.get("tools"))
    except BadData as error:
        raise BadData(f"row {row.get('id', '?')}: {error.message}", error.hint) from None
    except TemplateError as error:
        raise BadData(
            f"row {row.get('id', '?')}: the chat template refuses it: {error}",
            "change the row's roles or their order, or train a model whose template takes them",
        ) from None
