"""What people's judgements say of two sources, one number an item.

Several graders of one item, several answers of one source and the many pairs of one ranking are not independent: tests that count
each of them as a vote of its own raise false alarms. So all of them are averaged to one `Score` an item before anything is counted
or tested, and the outcome of an item is the sign of that.

    sources(items) -> list[str]                                       # the models, in the order in which they first appear
    collapse(items, judgements, first, second) -> list[Score]         # Score(item, value, graders, longer_by), .outcome
    pair_votes(item, judgement) -> dict[tuple[str, str], int]         # +1, 0, -1 for each two different answers of an item

A repeat of a showing serves self-consistency only (`ftcli.human.graders`); a skip says nothing; "both bad" is a tie of all answers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftcli.human.tasks import Item, Judgement

ROUNDING = 1e-9
"""A mean of votes below this is 0: sums of thirds and halves are not exact."""


@dataclass(frozen=True)
class Score:
    """``value`` from -1 (the first source is better, all agree) to 1 (the second); ``longer_by`` in characters, second minus first.

    ``graders`` is 0 for an item whose answers are all the same text: nobody is shown it, and it is a tie.
    """

    item: str
    value: float
    graders: int
    longer_by: float

    @property
    def outcome(self) -> int:
        return sign(self.value)


def sources(items: Iterable[Item]) -> list[str]:
    """Every source once, in the order in which the items name them."""
    return list(dict.fromkeys(candidate.source for item in items for candidate in item.candidates))


def collapse(items: Sequence[Item], judgements: Iterable[Judgement], first: str, second: str) -> list[Score]:
    """One score for each item that has answers of both sources and a judgement of them.

    A grader's value is the mean over all pairs of an answer of the one and an answer of the other, the same text being a tie;
    the item's value is the mean over graders. Raises `ValueError` for a judgement of an item that is not among ``items``.
    """
    judged = by_item(items, judgements)
    scores = []
    for item in items:
        one = [candidate for candidate in item.candidates if candidate.source == first]
        other = [candidate for candidate in item.candidates if candidate.source == second]
        if not one or not other:
            continue
        pairs = [(a.id, b.id) for a in one for b in other]
        votes = judged.get(item.id, [])
        if votes or not item.shown:
            value = _mean([_mean_vote(pairs, given) for given in votes] or [0.0])
            longer_by = _mean([len(b.text) for b in other]) - _mean([len(a.text) for a in one])
            scores.append(Score(item.id, value, len(votes), longer_by))
    return scores


def by_item(items: Iterable[Item], judgements: Iterable[Judgement]) -> dict[str, list[dict[tuple[str, str], int]]]:
    """Item id -> the votes of each grader who said something of it; repeats are left out."""
    known = {item.id: item for item in items}
    judged: dict[str, list[dict[tuple[str, str], int]]] = defaultdict(list)
    for judgement in judgements:
        if judgement.is_repeat:
            continue
        if judgement.item not in known:
            raise ValueError(f"{judgement.grader} judges item {judgement.item}, which the task does not have")
        if votes := pair_votes(known[judgement.item], judgement):
            judged[judgement.item].append(votes)
    return judged


def pair_votes(item: Item, judgement: Judgement) -> dict[tuple[str, str], int]:
    """(a, b) -> +1 where the answer b is better, -1 where a is, 0 for a tie, for each two different answers of the item.

    Pairs are in the order of the item's candidates. Empty for a skip.
    """
    pairs = combinations([candidate.id for candidate in item.distinct], 2)
    if judgement.verdict == "both_bad":
        return dict.fromkeys(pairs, 0)
    if judgement.verdict != "ranked":
        return {}
    return {(a, b): sign(judgement.ranks[a] - judgement.ranks[b]) for a, b in pairs}


def sign(value: float) -> int:
    """1, 0 or -1; 0 within `ROUNDING`."""
    return (value > ROUNDING) - (value < -ROUNDING)


def _mean_vote(pairs: Sequence[tuple[str, str]], votes: Mapping[tuple[str, str], int]) -> float:
    """The mean of one grader's votes over ``pairs``, whichever way round they are kept; the same text twice is a tie."""
    return _mean([0 if a == b else votes[a, b] if (a, b) in votes else -votes[b, a] for a, b in pairs])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
