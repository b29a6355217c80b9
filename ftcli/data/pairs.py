"""From preference and ranking rows to answers and pairs in token ids: all pairs of a prompt together, each distinct answer once,
every pair that is left out counted.

A preference row states one pair. A ranking of K candidates states C(K, 2), and candidates of equal rank tie.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from ftcli.core.errors import BadData
from ftcli.data.chat import render_answer, row_name
from ftcli.data.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Overlong = Literal["truncate", "reject"]
Ties = Literal["drop", "soft", "davidson"]


@dataclass(frozen=True)
class Pair:
    """Two answers, as indices into `Answers.answers`; of a tie, which is called ``winner`` means nothing.

    ``margin`` >= 0 is by how much the winner's score is higher; 0 also where no score is known. ``row`` is the id of the row
    that states the pair.
    """

    winner: int
    loser: int
    is_tie: bool = False
    margin: float = 0.0
    row: str = ""


@dataclass(frozen=True)
class Answers:
    """One prompt, its distinct answers through their end-of-turn token, all in token ids, and the pairs among them.

    Every answer is in a pair. ``row`` is the first row of the prompt.
    """

    prompt: list[int]
    answers: list[list[int]]
    pairs: list[Pair]
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass
class Encoded:
    """``prompts`` in the order of their first rows, and what became of all pairs:
    ``pairs + identical + repeated + overlong + ties_dropped`` are the pairs that the rows state."""

    prompts: list[Answers] = field(default_factory=list)
    pairs: int = 0
    """Pairs in ``prompts``."""
    ties: int = 0
    """Those of them that are ties."""
    contradicted: int = 0
    """Those of them that another pair of the same two answers contradicts. They stay: judges differ."""
    without_margin: int = 0
    """Those of them, ties aside, for which a margin was asked and no scores are known."""
    truncated_prompts: int = 0
    """Prompts that lost their beginning."""
    identical: int = 0
    """Pairs left out since both answers are the same tokens."""
    repeated: int = 0
    """Pairs left out since the prompt has the same pair with the same outcome already."""
    overlong: int = 0
    """Pairs left out since they are longer than the limit."""
    ties_dropped: int = 0
    """Pairs left out since they are ties."""

    def counts(self) -> dict[str, int]:
        numbers = {name: value for name, value in vars(self).items() if name != "prompts"}
        return {"pairs": numbers.pop("pairs"), "prompts": len(self.prompts), **numbers}


@dataclass(frozen=True)
class _Stated:
    """A pair as a row states it, the better answer first."""

    better: tuple[int, ...]
    worse: tuple[int, ...]
    is_tie: bool
    margin: float | None


@dataclass
class _Group:
    """What is known of one prompt while rows are read; answers are numbered as they come."""

    prompt: list[int]
    row: Row
    answers: dict[tuple[int, ...], int] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    outcomes: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    """By numbers of two answers, the lower first: what was said of them."""

    def number(self, answer: tuple[int, ...]) -> int:
        return self.answers.setdefault(answer, len(self.answers))

    def is_contradicted(self, pair: Pair) -> bool:
        return len(self.outcomes[_places(pair)]) > 1


def prompt_key(row: Row) -> str:
    """Equal for rows that ask the same."""
    return json.dumps(row["prompt"], sort_keys=True)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    stop_ids: frozenset[int],
    max_length: int,
    overlong: Overlong,
    *,
    ties: Ties,
    use_margin: bool = False,
) -> Encoded:
    """Render preference and ranking ``rows``, which may be mixed, and collect the pairs of each prompt.

    A pair with an answer of ``max_length`` tokens or more is left out; so is one that is too long together with its prompt, where
    ``overlong`` is ``reject``. Otherwise a prompt that is too long loses its beginning, the same part for all its answers. ``ties``
    other than ``drop`` keeps ties. With ``use_margin``, a preference row's margin is ``meta.margin``, else ``meta.chosen_score``
    less ``meta.rejected_score``; a ranking's pairs take theirs from ``meta.scores``, a number for each candidate. Numbers may
    be text, as prep keeps columns.

    Raises `BadData` naming the row that the chat template refuses, whose answer is more than one message, or whose scores
    are no numbers or contradict its order.
    """
    found = Encoded()
    groups: dict[str, _Group] = {}
    for row in rows:
        prompt, stated = _read(tokenizer, row, stop_ids, use_margin)
        for pair in stated:
            longest = max(len(pair.better), len(pair.worse))
            if pair.is_tie and ties == "drop":
                found.ties_dropped += 1
            elif pair.better == pair.worse:
                found.identical += 1
            elif longest >= max_length or (overlong == "reject" and len(prompt) + longest > max_length):
                found.overlong += 1
            elif not _add(groups.setdefault(prompt_key(row), _Group(prompt, row)), pair, row["id"]):
                found.repeated += 1
            elif use_margin and not pair.is_tie and pair.margin is None:
                found.without_margin += 1
    for group in groups.values():
        room = max_length - max(len(answer) for answer in group.answers)
        found.truncated_prompts += len(group.prompt) > room
        found.pairs += len(group.pairs)
        found.ties += sum(pair.is_tie for pair in group.pairs)
        found.contradicted += sum(map(group.is_contradicted, group.pairs))
        found.prompts.append(
            Answers(group.prompt[-room:], [list(answer) for answer in group.answers], group.pairs, group.row)
        )
    return found


def _add(group: _Group, stated: _Stated, row: str) -> bool:
    """Put a pair into its group, unless the same was stated before."""
    pair = Pair(group.number(stated.better), group.number(stated.worse), stated.is_tie, stated.margin or 0.0, row)
    outcome = "tie" if pair.is_tie else "lower" if pair.winner < pair.loser else "higher"
    known = group.outcomes.setdefault(_places(pair), set())
    if outcome in known:
        return False
    known.add(outcome)
    group.pairs.append(pair)
    return True


def _places(pair: Pair) -> tuple[int, int]:
    return min(pair.winner, pair.loser), max(pair.winner, pair.loser)


def _read(
    tokenizer: PreTrainedTokenizerBase, row: Row, stop_ids: frozenset[int], use_margin: bool
) -> tuple[list[int], list[_Stated]]:
    """The prompt's ids and the pairs of one row."""
    if "candidates" not in row:
        prompt, (chosen, rejected) = _render(tokenizer, row, [_only(row, "chosen"), _only(row, "rejected")], stop_ids)
        return prompt, [_Stated(chosen, rejected, False, _pair_margin(row) if use_margin else None)]
    candidates = row["candidates"]
    prompt, answers = _render(tokenizer, row, [one["content"] for one in candidates], stop_ids)
    scores = _scores(row) if use_margin else None
    return prompt, list(_ranked(row, [one["rank"] for one in candidates], answers, scores))


def _ranked(
    row: Row, ranks: Sequence[int], answers: Sequence[tuple[int, ...]], scores: Sequence[float] | None
) -> Iterator[_Stated]:
    for places in combinations(range(len(ranks)), 2):
        better, worse = sorted(places, key=lambda place: ranks[place])
        is_tie = ranks[better] == ranks[worse]
        known = None if scores is None or is_tie else _checked(row, scores[better] - scores[worse])
        yield _Stated(answers[better], answers[worse], is_tie, known)


def _render(
    tokenizer: PreTrainedTokenizerBase, row: Row, texts: Sequence[str], stop_ids: frozenset[int]
) -> tuple[list[int], list[tuple[int, ...]]]:
    answers = []
    prompt: list[int] = []
    try:
        for text in texts:
            prompt, answer = render_answer(tokenizer, row["prompt"], text, stop_ids)
            answers.append(tuple(answer))
    except BadData as error:
        raise BadData(f"{row_name(row)}: {error.message}", error.hint) from None
    return prompt, answers


def _only(row: Row, side: str) -> str:
    """The text of an answer that is one message."""
    if len(row[side]) != 1:
        raise BadData(
            f"{row_name(row)}: {side} has {len(row[side])} messages, one answer needed",
            "put what both answers have in common into prompt",
        )
    return str(row[side][0]["content"])


def _pair_margin(row: Row) -> float | None:
    meta = row.get("meta") or {}
    if "margin" in meta:
        return _checked(row, _number(row, "margin", meta["margin"]))
    if "chosen_score" in meta and "rejected_score" in meta:
        scores = (_number(row, name, meta[name]) for name in ("chosen_score", "rejected_score"))
        return _checked(row, next(scores) - next(scores))
    return None


def _scores(row: Row) -> list[float] | None:
    found = (row.get("meta") or {}).get("scores")
    if found is None:
        return None
    try:
        numbers = json.loads(found) if isinstance(found, str) else found
    except ValueError:
        numbers = None
    if not isinstance(numbers, list) or len(numbers) != len(row["candidates"]):
        raise BadData(f"{row_name(row)}: meta.scores is no list of {len(row['candidates'])} numbers", _HINT)
    return [_number(row, "scores", value) for value in numbers]


_HINT = "correct the row, or turn use_margin off"


def _number(row: Row, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise BadData(f"{row_name(row)}: meta.{name} is {value!r}, a number needed", _HINT)
    return number


def _checked(row: Row, margin: float) -> float:
    if margin < 0:
        raise BadData(f"{row_name(row)}: a margin of {margin:g}: its scores contradict its order", _HINT)
    return margin


def without_prompts(rows: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    """``rows`` whose prompt is not asked in ``held_out``: a prompt that is trained on is no test."""
    asked = {prompt_key(row) for row in held_out}
    return [row for row in rows if prompt_key(row) not in asked]
