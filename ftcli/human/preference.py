"""How often one source's answers are preferred to another's, how sure that is, and what so few items could have shown at all.

    win_rate(scores) -> WinRate                     # of scores = collapse(items, judgements, first, second), for the *second*
        .items .wins .ties .losses .identical       # items, by their outcome
        .rate .low .high                            # ties as halves, bootstrap interval over items
        .decided .decided_low .decided_high         # among the decided items, Wilson interval
        .p                                          # exact sign test on items; it alone decides, the intervals are for display
        .detectable                                 # the decided win rate that so many items show with 80 % power, or None
        .text(first, second) -> str                 # the sentences for the report
    win_rates(items, judgements) -> list[Versus]    # Versus(first, second, result), every two sources
    sign_test(wins, losses), wilson(wins, n), detectable_rate(n)

Sources: Wilson 1927; the sign test, Dixon and Mood 1946; counting ties as halves, Zheng et al. 2023 (arXiv 2306.05685).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, stats

from ftcli.human.scores import Score, collapse, sources

if TYPE_CHECKING:
    from ftcli.human.tasks import Item, Judgement

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class WinRate:
    """The second source against the first. What has no value (no items, none decided, outcomes all alike) is None."""

    items: int
    wins: int
    ties: int
    losses: int
    identical: int
    """Ties among ``ties`` that nobody was shown, both texts being the same."""
    rate: float | None
    low: float | None
    high: float | None
    decided: float | None
    decided_low: float | None
    decided_high: float | None
    p: float
    detectable: float | None

    def text(self, first: str, second: str) -> str:
        """What was found and what could have been found, in plain sentences."""
        if self.rate is None:
            return f"No item compares {second} with {first} yet."
        counts = f"{self.wins} won, {self.ties} tied, {self.losses} lost"
        span = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        lines = [f"{second} against {first}: win rate {self.rate:.3f}{span} on {self.items} items ({counts})."]
        if self.decided is not None:
            span = f"[{self.decided_low:.3f}, {self.decided_high:.3f}]"
            lines.append(f"Of the decided items it wins {self.decided:.3f} {span}, p = {self.p:.3g}.")
        lines.append(_verdict(self, first, second))
        lines.append(detectable_text(self.wins + self.losses))
        return " ".join(lines)


@dataclass(frozen=True)
class Versus:
    first: str
    second: str
    result: WinRate


def win_rates(items: Sequence[Item], judgements: Sequence[Judgement], *, seed: int = 0) -> list[Versus]:
    """Every two sources; the one that the items name later is the second, whose wins are counted."""
    return [
        Versus(first, second, win_rate(collapse(items, judgements, first, second), seed=seed))
        for first, second in combinations(sources(items), 2)
    ]


def win_rate(scores: Sequence[Score], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> WinRate:
    """The second source's win rate from one score an item (`ftcli.human.scores.collapse`)."""
    outcomes = [score.outcome for score in scores]
    wins, ties, losses = outcomes.count(1), outcomes.count(0), outcomes.count(-1)
    n, decided = len(outcomes), wins + losses
    low, high = _bootstrap(outcomes, confidence, resamples, seed)
    decided_low, decided_high = wilson(wins, decided, confidence) if decided else (None, None)
    return WinRate(
        items=n,
        wins=wins,
        ties=ties,
        losses=losses,
        identical=sum(score.graders == 0 for score in scores),
        rate=(wins + ties / 2) / n if n else None,
        low=low,
        high=high,
        decided=wins / decided if decided else None,
        decided_low=decided_low,
        decided_high=decided_high,
        p=sign_test(wins, losses),
        detectable=detectable_rate(decided),
    )


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p of "a decided item is won as often as lost"; 1 where none is decided."""
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share of ``n``."""
    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def detectable_rate(n: int, *, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """The win rate that the exact sign test on ``n`` decided items shows with probability ``power``; None where none is.

    By the binomial distribution itself, not its normal approximation.
    """
    most_losses = int(stats.binom.ppf(alpha / 2, n, 0.5)) - 1 if n else -1  # the most for which p < alpha
    if most_losses < 0:
        return None
    return float(optimize.brentq(lambda win: stats.binom.cdf(most_losses, n, 1 - win) - power, 0.5, 1.0))


def detectable_text(n: int) -> str:
    """What ``n`` decided items can show, to stand beside every result."""
    rate = detectable_rate(n)
    if rate is None:
        return f"With {n} decided items nothing can be detected, however clear it is."
    percent = math.ceil(100 * rate - 1e-6)
    return f"With {n} decided items only {percent}/{100 - percent} or clearer can be detected ({POWER:.0%} power)."


def _verdict(found: WinRate, first: str, second: str) -> str:
    if found.p >= ALPHA:
        return "No difference is shown."
    return f"{second if found.wins > found.losses else first} is preferred."


def _bootstrap(
    outcomes: Sequence[int], confidence: float, resamples: int, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """The percentile interval of the mean of (1 + outcome) / 2 over items; none where all outcomes are alike."""
    if len(set(outcomes)) < 2:
        return None, None
    found = stats.bootstrap(
        ((1 + np.asarray(outcomes, dtype=np.float64)) / 2,),
        np.mean,
        n_resamples=resamples,
        batch=500,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
