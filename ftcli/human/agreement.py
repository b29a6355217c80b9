"""How far graders agree with each other.

    rank_agreement(items, judgements) -> Agreement      # of rankings and A/B votes
    review_agreement(judgements) -> Agreement           # of accept, edit, reject
        .graders .items .units                          # units judged by two graders or more; .items that they belong to
        .raw                                            # how often two graders of a unit say the same
        .alpha .low .high                               # Krippendorff's, nominal, with a bootstrap interval over items
        .ordinal                                        # Krippendorff's, ordinal
        .pairs -> tuple[PairAgreement, ...]             # PairAgreement(first, second, units, raw, kappa), Cohen's
        .words -> str
    krippendorff_alpha(values, level), cohen_kappa(first, second)

A unit is two answers of an item (a ranking of k answers has k (k - 1) / 2), of which the one is better, the other is, or they tie;
"both bad" is a tie, a skip is missing, repeats are left out. Graders are blind, and which answer is called the first means nothing
to them. So each unit is entered both ways round: the agreement expected by chance is that of people who do not know the sources.
With the sources as labels, graders who rightly prefer the same model on nearly all items would look like noise.

Sources: Krippendorff 2011 (repository.upenn.edu/asc_papers/43); Cohen 1960.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import krippendorff
import numpy as np

from ftcli.human.scores import pair_votes

if TYPE_CHECKING:
    from ftcli.human.tasks import Item, Judgement

Array = np.ndarray[Any, Any]
Level = Literal["nominal", "ordinal"]
NOISE, WEAK, STRONG = 0.2, 0.667, 0.8
"""Alphas below which votes are mostly noise, do not carry a conclusion each by itself, or carry a tentative one (Krippendorff)."""
REVIEW = {"reject": 0, "edit": 1, "accept": 2}


@dataclass(frozen=True)
class PairAgreement:
    first: str
    second: str
    units: int
    raw: float
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """What cannot be told (nobody judged the same, or everything was judged alike) is None."""

    graders: int
    items: int
    units: int
    raw: float | None
    alpha: float | None
    low: float | None
    high: float | None
    ordinal: float | None
    pairs: tuple[PairAgreement, ...]

    @property
    def words(self) -> str:
        if not self.units:
            return "No item was judged by two graders, so agreement cannot be told."
        if self.alpha is None:
            return "Every vote is the same, so agreement beyond chance cannot be told."
        found = f"alpha = {self.alpha:.2f}"
        if self.alpha < NOISE:
            return f"{found} < {NOISE}: these votes are mostly noise."
        if self.alpha < WEAK:
            return f"{found}: graders often differ; single votes are weak evidence, many together still count."
        if self.alpha < STRONG:
            return f"{found}: graders mostly agree."
        return f"{found}: graders agree."


def rank_agreement(
    items: Sequence[Item],
    judgements: Iterable[Judgement],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Agreement on which of two answers is better. Raises `ValueError` for a judgement of an item that is not among ``items``."""
    units: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    known = {item.id: item for item in items}
    for judgement in judgements:
        if judgement.item not in known:
            raise ValueError(f"{judgement.grader} judges item {judgement.item}, which the task does not have")
        if judgement.is_repeat:
            continue
        for (a, b), vote in pair_votes(known[judgement.item], judgement).items():
            units[judgement.item, a, b][judgement.grader] = vote
            units[judgement.item, b, a][judgement.grader] = -vote
    return _agreement(units, 2, (-1, 0, 1), confidence, resamples, seed)


def review_agreement(
    judgements: Iterable[Judgement], *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Agreement:
    """Agreement on accept, edit or reject, in this order for the ordinal alpha; a unit is an item."""
    units: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for judgement in judgements:
        if judgement.verdict in REVIEW and not judgement.is_repeat:
            units[(judgement.item,)][judgement.grader] = REVIEW[judgement.verdict]
    return _agreement(units, 1, tuple(REVIEW.values()), confidence, resamples, seed)


def krippendorff_alpha(counts: Array, level: Level = "nominal") -> float | None:
    """Alpha of ``counts`` [units, values]: how many graders gave a unit each of the values, which for "ordinal" are in order.

    None where no unit has two values, or all values that can be compared are the same.
    """
    counts = counts[counts.sum(axis=1) > 1]
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement=level))


def cohen_kappa(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Agreement of two graders on the same units beyond what their shares of each value give; None for no units or one value."""
    if not len(first):
        return None
    one, other = np.asarray(first), np.asarray(second)
    chance = sum(float((one == value).mean() * (other == value).mean()) for value in np.union1d(one, other))
    return None if math.isclose(chance, 1) else float(((one == other).mean() - chance) / (1 - chance))


def _agreement(
    units: Mapping[tuple[str, ...], Mapping[str, int]],
    entered: int,
    values: Sequence[int],
    confidence: float,
    resamples: int,
    seed: int,
) -> Agreement:
    """``units``: (item, ...) -> grader -> value, each unit of the data being there ``entered`` times."""
    shared = {unit: votes for unit, votes in units.items() if len(votes) > 1}
    counts = np.array([[list(votes.values()).count(value) for value in values] for votes in shared.values()])
    counts = counts.reshape(len(shared), len(values))
    items = np.unique([unit[0] for unit in shared], return_inverse=True)[1]
    low, high = _interval(counts, items, confidence, resamples, seed)
    said = counts.sum(axis=1)
    alike = (counts * (counts - 1)).sum(axis=1) / (said * (said - 1))  # the share of a unit's ordered pairs of graders
    return Agreement(
        graders=len({grader for votes in units.values() for grader in votes}),
        items=len(np.unique(items)),
        units=len(shared) // entered,
        raw=float(np.average(alike, weights=said * (said - 1))) if shared else None,
        alpha=krippendorff_alpha(counts),
        low=low,
        high=high,
        ordinal=krippendorff_alpha(counts, "ordinal"),
        pairs=_pairs(shared, entered),
    )


def _pairs(shared: Mapping[tuple[str, ...], Mapping[str, int]], entered: int) -> tuple[PairAgreement, ...]:
    both: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for votes in shared.values():
        for first, second in combinations(sorted(votes), 2):
            both[first, second].append((votes[first], votes[second]))
    found = []
    for (first, second), said in sorted(both.items()):
        one, other = zip(*said, strict=True)
        raw = sum(a == b for a, b in said) / len(said)
        found.append(PairAgreement(first, second, len(said) // entered, raw, cohen_kappa(one, other)))
    return tuple(found)


def _interval(
    counts: Array, items: Array, confidence: float, resamples: int, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """The percentile interval of alpha: all units of an item are drawn together. None for fewer than two items.

    A resample in which everything is alike has no alpha and is left out.
    """
    n = len(np.unique(items))
    if n < 2:
        return None, None
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(n, size=n), minlength=n)[items] for _ in range(resamples))
    alphas = [alpha for times in drawn if (alpha := krippendorff_alpha(np.repeat(counts, times, axis=0))) is not None]
    if not alphas:
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.quantile(alphas, [tail, 1 - tail])
    return float(low), float(high)
