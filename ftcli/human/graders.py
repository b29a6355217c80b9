"""How each grader works: a row of figures, and flags with reasons where the votes should be looked at.

    grader_table(items, judgements) -> list[GraderRow]      # by name, of a rank task
        .grader .showings .repeats .ties .both_bad .skipped .fast .median_seconds
        .repeated .consistent                               # repeated items, and the share judged the same both times
        .compared .with_others                              # items decided by the grader and by the rest, share that agree
        .position -> Position(chosen, first, expected, p)   # showings with one best answer; share of it shown first; by chance
        .flags -> tuple[Flag, ...]                          # Flag(kind: "noise" | "position" | "fast", reason: str)
    position_bias(judgements) -> Position                   # of all graders together

A flag is a reason to look and not a proof: nothing is left out because of one. "noise" is for who is no better than chance, by the
others and by the repeats together, *and* sides with the rest clearly less than they do with each other, or repeats himself clearly
less than people do; few votes raise no flag. Everything is counted by item: a ranking of k answers agrees or not as a whole.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from scipy import stats

from ftcli.human.scores import pair_votes, sign

if TYPE_CHECKING:
    from ftcli.human.tasks import Item, Judgement

FAST_SECONDS = 1.5
"""Nobody reads two answers in less."""
FAST_SHARE = 0.25
FEWEST = 10
"""Showings from which shares are worth a flag."""
LEAST_BIAS = 0.15
"""How far the share of the answer shown first must be from that of unbiased people for a flag, whatever its p."""
SELF_CONSISTENT = 0.7
"""How often people at the least say the same again of answers that they had decided between."""
LEVEL = 0.01
"""The chance of a false alarm where one figure is held against a fixed one: the place of the chosen answers, the repeats."""
OTHERS_LEVEL = 0.05
"""The chance of a false alarm where a grader is held against the rest; one who is better than chance (below it too) is cleared."""

Votes = Mapping[tuple[str, str], int]
Counts = tuple[int, int]


@dataclass(frozen=True)
class Flag:
    kind: Literal["noise", "position", "fast"]
    reason: str


@dataclass(frozen=True)
class Position:
    """``chosen`` showings in which one answer was ranked best, the share ``first`` of them with it shown first (leftmost).

    ``expected`` is that share for people who do not look at the side, 1 / k for k answers; ``p`` is exact, two-sided: the
    Poisson binomial distribution, which for pairs is the binomial with 1/2.
    """

    chosen: int
    first: float | None
    expected: float | None
    p: float


@dataclass(frozen=True)
class GraderRow:
    """Shares are of the showings, repeats among them. None is what cannot be told, as without repeats or other graders."""

    grader: str
    showings: int
    repeats: int
    ties: float
    both_bad: float
    skipped: float
    fast: float
    median_seconds: float | None
    repeated: int
    consistent: float | None
    compared: int
    with_others: float | None
    position: Position
    flags: tuple[Flag, ...]


def grader_table(items: Iterable[Item], judgements: Sequence[Judgement]) -> list[GraderRow]:
    """One row a grader, by name. Raises `ValueError` for a judgement of an item that is not among ``items``."""
    known = {item.id: item for item in items}
    unknown = [judgement for judgement in judgements if judgement.item not in known]
    if unknown:
        raise ValueError(f"{unknown[0].grader} judges item {unknown[0].item}, which the task does not have")
    own: dict[str, list[Judgement]] = defaultdict(list)
    votes: dict[str, dict[str, Votes]] = defaultdict(dict)  # grader -> item -> votes of the first showing
    for judgement in judgements:
        own[judgement.grader].append(judgement)
        if not judgement.is_repeat:
            votes[judgement.grader][judgement.item] = pair_votes(known[judgement.item], judgement)
    return [_row(grader, own[grader], known, votes) for grader in sorted(own)]


def position_bias(judgements: Iterable[Judgement]) -> Position:
    """Whether answers are chosen for where they were shown. Sides are shuffled for each grader, so each showing is a trial."""
    best = [(_best(judgement), judgement.order) for judgement in judgements if judgement.verdict == "ranked"]
    decided = [(chosen, order) for chosen, order in best if chosen is not None and order]
    if not decided:
        return Position(0, None, None, 1.0)
    first = sum(order[0] == chosen for chosen, order in decided)
    shares = [1 / len(order) for _, order in decided]
    null = stats.poisson_binom(shares)
    p = min(1.0, 2 * min(float(null.cdf(first)), float(null.sf(first - 1))))
    return Position(len(decided), first / len(decided), math.fsum(shares) / len(decided), p)


def _row(
    grader: str, own: Sequence[Judgement], items: Mapping[str, Item], votes: Mapping[str, Mapping[str, Votes]]
) -> GraderRow:
    n = len(own)
    again = [
        (votes[grader][judgement.item], pair_votes(items[judgement.item], judgement))
        for judgement in own
        if judgement.is_repeat and votes[grader].get(judgement.item)
    ]
    again = [(before, after) for before, after in again if after]
    same = _agreeing(again)
    rest = [name for name in votes if name != grader]
    compared = _with_rest(grader, rest, votes)
    timed = [judgement.seconds for judgement in own if judgement.seconds > 0]  # 0: a sheet, which has no clock
    fast = sum(seconds < FAST_SECONDS for seconds in timed) / n
    position = position_bias(own)
    flags = _sided(position)
    if not _above_chance(compared[0] + same[0], compared[1] + same[1]):
        among_rest = [_with_rest(name, [x for x in rest if x != name], votes) for name in rest]
        flags += [*_unlike_others(compared, among_rest), *_unlike_self(same)]
    if n >= FEWEST and fast > FAST_SHARE:
        flags.append(Flag("fast", f"{fast:.0%} of {n} votes took less than {FAST_SECONDS} s"))
    return GraderRow(
        grader=grader,
        showings=n,
        repeats=sum(judgement.is_repeat for judgement in own),
        ties=sum(judgement.verdict == "ranked" and len(set(judgement.ranks.values())) == 1 for judgement in own) / n,
        both_bad=sum(judgement.verdict == "both_bad" for judgement in own) / n,
        skipped=sum(judgement.verdict == "skip" for judgement in own) / n,
        fast=fast,
        median_seconds=median(timed) if timed else None,
        repeated=len(again),
        consistent=sum(before == after for before, after in again) / len(again) if again else None,
        compared=sum(compared),
        with_others=compared[0] / sum(compared) if sum(compared) else None,
        position=position,
        flags=tuple(flags),
    )


def _best(judgement: Judgement) -> str | None:
    """The answer ranked above all others; None where several are."""
    top = [answer for answer, rank in judgement.ranks.items() if rank == min(judgement.ranks.values())]
    return top[0] if len(top) == 1 else None


def _agreeing(both: Iterable[tuple[Votes, Mapping[tuple[str, str], float]]]) -> Counts:
    """(agree, differ) over items: the sign of how many pairs of answers are decided alike rather than the other way round."""
    signs = [sign(sum(vote * sign(other[pair]) for pair, vote in one.items() if pair in other)) for one, other in both]
    return signs.count(1), signs.count(-1)


def _with_rest(grader: str, rest: Sequence[str], votes: Mapping[str, Mapping[str, Votes]]) -> Counts:
    """(agree, differ) of one grader with the mean of the ``rest``, over the items that both decide."""
    both = []
    for item, own in votes[grader].items():
        means: dict[tuple[str, str], float] = defaultdict(float)
        for name in rest:
            for pair, vote in votes[name].get(item, {}).items():
                means[pair] += vote
        both.append((own, means))
    return _agreeing(both)


def _above_chance(agree: int, differ: int) -> bool:
    return bool(stats.binom.sf(agree - 1, agree + differ, 0.5) < OTHERS_LEVEL)


def _unlike_others(own: Counts, others: Sequence[Counts]) -> list[Flag]:
    """A flag where the grader sides with the rest less than they do with each other (Fisher's exact test).

    ``others`` has the same counts for each of the rest, in which each agreement of two of them is counted twice. A single other
    grader agrees with nobody else, and then it cannot be told which of the two is off.
    """
    agree, differ = (sum(counts[i] for counts in others) // 2 for i in (0, 1))
    if not sum(own) or not agree + differ:
        return []
    less = float(stats.fisher_exact([own, (agree, differ)], alternative="less").pvalue)
    if less >= OTHERS_LEVEL:
        return []
    found = f"sides with the others on {own[0]} of {sum(own)} items, no more than by guessing"
    return [Flag("noise", f"{found}; they side with each other on {agree / (agree + differ):.0%} (p = {less:.2g})")]


def _unlike_self(same: Counts) -> list[Flag]:
    n = sum(same)
    less = float(stats.binom.cdf(same[0], n, SELF_CONSISTENT)) if n else 1.0
    if less >= LEVEL:
        return []
    return [
        Flag(
            "noise",
            f"says the same again of {same[0]} of {n} repeated items; {SELF_CONSISTENT:.0%} is little (p = {less:.2g})",
        )
    ]


def _sided(found: Position) -> list[Flag]:
    if found.first is None or found.expected is None or found.p >= LEVEL:
        return []
    if abs(found.first - found.expected) < LEAST_BIAS:
        return []
    often = f"chose the answer shown first in {found.first:.0%} of {found.chosen} showings"
    return [
        Flag(
            "position", f"{often}; {found.expected:.0%} is what people do who do not mind the side (p = {found.p:.2g})"
        )
    ]
