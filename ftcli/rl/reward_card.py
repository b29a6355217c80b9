"""What a reward model is worth, from its scores of held-out answers alone: accuracy and how sure it is, beside rules that
look at length only, calibration, length bias. And whether PPO may use it.

A figure that the pairs cannot give (no pair has a shorter winner, say) is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ftcli.rl.calibration import calibration, log_loss, temperature
from ftcli.rl.judged import RESAMPLES, Array, Figures, Judged, PairTable, accuracy_interval, mean_or_none, right
from ftcli.rl.rewards import score_summary

HISTOGRAM_BINS, BUCKETS, FEWEST_IN_BUCKET = 20, 4, 5
ALIKE = 0.1
"""Two answers are of one length where they differ by less than this part of the longer one."""
FEWEST_PROMPTS = 20
"""With fewer prompts an interval over prompts is too narrow, and a gate would let chance through."""


def reward_card(judged: Sequence[Judged], *, seed: int = 0) -> Figures:
    """All figures, as they stand in reward_stats.json. Raises ValueError where no pair has a winner or a score is not
    finite."""
    table = PairTable.of(judged)
    if not all(math.isfinite(score) for one in judged for score in one.scores):
        raise ValueError("a score is not finite")
    correct, longer = right(table.margin), right(table.longer)
    whole = accuracy_interval(correct, table.prompt, seed=seed)
    ties = sum(len(one.ties) for one in judged)
    return {
        "pairs": len(table),
        "prompts": len(np.unique(table.prompt)),
        "accuracy": float(correct.mean()),
        "accuracy_low": whole.low,
        "accuracy_high": whole.high,
        "log_loss": log_loss(table.margin),
        "longer_wins_accuracy": float(longer.mean()),
        "shorter_wins_accuracy": float(1 - longer.mean()),
        "tie_rate": float((table.margin == 0).mean()),
        "ties_by_people": ties,
        "interval": whole.method,
        "baselines": baselines(judged, table, seed),
        "calibration": {**calibration(table.margin), "temperature": temperature(table, seed)},
        "margins": {**score_summary(table.margin.tolist()), "histogram": histogram(pairs=table.margin.tolist())},
        "tie_margins": _tie_margins(judged, table),
        "chosen": score_summary(_distinct(judged, side=0)),
        "rejected": score_summary(_distinct(judged, side=1)),
        "scores": histogram(chosen=_distinct(judged, side=0), rejected=_distinct(judged, side=1)),
        "by_margin": by_margin(table.margin),
        "by_source": by_source(judged, table, seed),
        "length_bias": length_bias(judged, table),
    }


def baselines(judged: Sequence[Judged], table: PairTable, seed: int = 0) -> dict[str, Figures]:
    """Accuracy of judges that know nothing but length, or nothing: of the ``random`` one the range in which 95 % of its
    draws fall on these pairs."""
    found = {}
    for name, correct in (("longer", right(table.longer)), ("shorter", right(-table.longer))):
        low, high, _ = accuracy_interval(correct, table.prompt, seed=seed)
        found[name] = {"accuracy": float(correct.mean()), "low": low, "high": high}
    starts = np.cumsum([0, *(len(one.scores) for one in judged)])
    winners, losers = np.array(
        [(first + w, first + lost) for first, one in zip(starts, judged, strict=False) for w, lost in one.pairs]
    ).T
    generator = np.random.default_rng(seed)
    draws = [generator.standard_normal(starts[-1]) for _ in range(RESAMPLES)]
    low, high = np.quantile([(draw[winners] > draw[losers]).mean() for draw in draws], [0.025, 0.975])
    return found | {"random": {"accuracy": 0.5, "low": float(low), "high": float(high)}}


def histogram(**series: Sequence[float]) -> Figures:
    """Counts of each of ``series`` in about `HISTOGRAM_BINS` equal bins between ``edges``, of which one is 0 if they span it."""
    named = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    every = np.concatenate(list(named.values()))
    width = float(np.ptp(every)) / HISTOGRAM_BINS or 1.0
    edges = np.arange(math.floor(every.min() / width), math.floor(every.max() / width) + 2) * width
    counts = {
        name: np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist() for name, values in named.items()
    }
    return {"edges": edges.tolist(), **counts}


def by_margin(margins: Array) -> list[Figures]:
    """Accuracy in up to `BUCKETS` groups of pairs as large as each other, by rising |margin|; empty for few pairs."""
    groups = min(BUCKETS, len(margins) // FEWEST_IN_BUCKET)
    if groups < 2:
        return []
    ordered = margins[np.argsort(np.abs(margins), kind="stable")]
    return [
        {
            "low": float(np.abs(part).min()),
            "high": float(np.abs(part).max()),
            "pairs": len(part),
            "accuracy": float(right(part).mean()),
        }
        for part in np.array_split(ordered, groups)
    ]


def by_source(judged: Sequence[Judged], table: PairTable, seed: int = 0) -> list[Figures]:
    """Accuracy with its interval for each source, the one with the most pairs first; empty where all is of one."""
    source_of = np.array([judged[number].source for number in table.prompt])
    names, counts = np.unique(source_of, return_counts=True)
    if len(names) < 2:
        return []
    found = []
    for name, count in sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda item: (-item[1], item[0])):
        own = source_of == name
        correct = right(table.margin[own])
        low, high, _ = accuracy_interval(correct, table.prompt[own], seed=seed)
        found.append({"source": name, "pairs": count, "accuracy": float(correct.mean()), "low": low, "high": high})
    return found


def length_bias(judged: Sequence[Judged], table: PairTable) -> Figures:
    """How much the score has to do with length, within prompts, so that prompts that ask for long answers do not count.

    ``spearman`` is the mean over the prompts in which scores and lengths both differ. ``prefers_longer`` is the share of pairs
    of unequal length whose longer answer has the higher score; `longer_wins_accuracy` is what people did.
    """
    correlations = [value for one in judged if (value := spearman(one.scores, one.lengths)) is not None]
    longest = np.maximum(table.winner_length, table.loser_length)
    differs = table.longer != 0
    return {
        "spearman": mean_or_none(np.array(correlations)),
        "spearman_prompts": len(correlations),
        "prefers_longer": mean_or_none(right(table.margin * np.sign(table.longer))[differs]),
        "people_prefer_longer": mean_or_none(right(table.longer)[differs]),
        "shorter_won": _accuracy(table.margin[table.longer < 0]),
        "longer_won": _accuracy(table.margin[table.longer > 0]),
        "alike": _accuracy(table.margin[np.abs(table.longer) < ALIKE * longest]),
    }


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where one of them is all the same."""
    if min(len(set(first)), len(set(second))) < 2:
        return None
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])


def reward_gate(figures: Mapping[str, Any]) -> str | None:
    """Why PPO must not use the reward model whose reward_stats.json holds ``figures``; None if it may.

    The interval of its accuracy must lie above what length alone achieves, and above chance.
    """
    needed = ("pairs", "prompts", "accuracy", "accuracy_low", "accuracy_high", "longer_wins_accuracy")
    missing = [name for name in needed if name not in figures]
    if missing:
        return f"its reward_stats.json has no {', '.join(missing)}"
    if figures["prompts"] < FEWEST_PROMPTS:
        return (
            f"its accuracy was measured on the pairs of {figures['prompts']} prompts only, {FEWEST_PROMPTS} are needed; "
            "hold out more rows"
        )
    longer = figures["longer_wins_accuracy"]
    baseline, rule = max(
        (0.5, "a coin gives"),
        (longer, "preferring the longer answer gives"),
        (1 - longer, "preferring the shorter answer gives"),
        key=lambda item: item[0],
    )
    if figures["accuracy_low"] > baseline:
        return None
    return (
        f"its held-out accuracy of {figures['accuracy']:.3f} (95 % interval {figures['accuracy_low']:.3f} to "
        f"{figures['accuracy_high']:.3f}, {figures['pairs']} pairs) is not clearly above the {baseline:.3f} that {rule}"
    )


def _accuracy(margins: Array) -> Figures:
    return {"pairs": len(margins), "accuracy": mean_or_none(right(margins))}


def _tie_margins(judged: Sequence[Judged], table: PairTable) -> Figures | None:
    """Mean |margin| of the pairs that people left undecided, beside that of the decided ones."""
    tied = np.array([abs(one.scores[a] - one.scores[b]) for one in judged for a, b in one.ties])
    if not len(tied):
        return None
    return {"pairs": len(tied), "mean": float(tied.mean()), "decided_mean": float(np.abs(table.margin).mean())}


def _distinct(judged: Sequence[Judged], side: int) -> list[float]:
    """Scores of the answers that win (side 0) or lose (side 1) some pair, each answer once."""
    return [one.scores[index] for one in judged for index in sorted({pair[side] for pair in one.pairs})]
