"""From preference rows to comparisons in token ids: all pairs of a prompt together, each answer once, every loss
counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jinja2.exceptions import TemplateError

from ftcli.core.errors import BadData
from ftcli.data.chat import render_answer
from ftcli.data.rows import Row
from ftcli.rl.preferences import Comparison
from ftcli.rl.sequences import Exchange

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Overlong = Literal["truncate", "reject"]


@dataclass
class Encoded:
    """``comparisons`` in the order of their prompts' first rows, and what became of all rows:
    ``pairs + identical + repeated + overlong`` are the rows read."""

    comparisons: list[Comparison] = field(default_factory=list)
    pairs: int = 0
    identical: int = 0
    """Rows left out since both answers are the same tokens."""
    repeated: int = 0
    """Rows left out since they repeat a pair of the same prompt."""
    overlong: int = 0
    """Rows left out since they are longer than the limit."""
    truncated_prompts: int = 0
    """Prompts that lost their beginning."""

    def counts(self) -> dict[str, int]:
        return {
            "pairs": self.pairs,
            "prompts": len(self.comparisons),
            "identical": self.identical,
            "repeated": self.repeated,
            "overlong": self.overlong,
            "truncated_prompts": self.truncated_prompts,
        }


@dataclass
class _Group:
    """What is known of one prompt while rows are read; answers are numbered as they come."""

    prompt: list[int]
    answers: dict[tuple[int, ...], int] = field(default_factory=dict)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def number(self, answer: tuple[int, ...]) -> int:
        return self.answers.setdefault(answer, len(self.answers))


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    stop_ids: frozenset[int],
    max_length: int,
    overlong: Overlong,
) -> Encoded:
    """Render preference ``rows``. Prompts that are too long lose their beginning, the same part for all their answers.

    Raises `BadData` naming the row that the chat template refuses.
    """
    found = Encoded()
    groups: dict[str, _Group] = {}
    for row in rows:
        prompt, chosen, rejected = _render(tokenizer, row, stop_ids)
        longest = max(len(chosen), len(rejected))
        if longest >= max_length or (overlong == "reject" and len(prompt) + longest > max_length):
            found.overlong += 1
            continue
        if chosen == rejected:
            found.identical += 1
            continue
        group = groups.setdefault(json.dumps(row["prompt"], sort_keys=True), _Group(prompt))
        pair = (group.number(chosen), group.number(rejected))
        if pair in group.pairs:
            found.repeated += 1
            continue
        group.pairs.append(pair)
        found.pairs += 1
    for group in groups.values():
        room = max_length - max(len(answer) for answer in group.answers)
        found.truncated_prompts += len(group.prompt) > room
        exchanges = [Exchange(group.prompt[-room:], list(answer)) for answer in group.answers]
        found.comparisons.append(Comparison(exchanges, group.pairs))
    return found


def _render(
    tokenizer: PreTrainedTokenizerBase, row: Row, stop_ids: frozenset[int]
) -> tuple[list[int], tuple[int, ...], tuple[int, ...]]:
    answers = []
    prompt: list[int] = []
    try:
        for side in ("chosen", "rejected"):
            prompt, answer = render_answer(tokenizer, row["prompt"], row[side][-1]["content"], stop_ids)
            answers.append(tuple(answer))
    except BadData as error:
        raise BadData(f"row {row.get('id', '?')}: {error.message}", error.hint) from None
    except TemplateError as error:
        raise BadData(
            f"row {row.get('id', '?')}: the chat template refuses it: {error}",
            "change the row's roles or their order, or use a model whose template takes them",
        ) from None
    return prompt, answers[0], answers[1]
