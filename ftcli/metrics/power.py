"""How many rows or votes a wanted effect needs, and what a given number of them can show: planning before anything is measured.

All tests are two-sided. Paired means take the normal approximation of the sign-flip and paired t tests; accuracy McNemar's test
given the share of rows on which the two models disagree; votes the sign test, exact by enumeration beside its normal approximation.
Sources: Lachin 1981 (Controlled Clinical Trials 2:93) for means and shares; Miettinen 1968 (Biometrics 24:339) for McNemar's test,
here with the larger variance of "no difference", which errs on the side of more rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from ftcli.core.config import nearest
from ftcli.core.errors import UsageError
from ftcli.metrics.statistics import detectable, fewest_rows

ENUMERATED = 20_000
"""Votes up to which the exact sign test is worth its enumeration; beyond, it and the normal approximation agree."""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "win": ("ties",),
    "d": (),
    "change": ("sd",),
    "accuracy": ("discordance",),
    "n": ("sd", "discordance", "ties"),
}
"""What may be asked, and what goes with it."""

KEYS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "win": ("a win rate above 0 and up to 1, not 0.5", lambda value: 0 < value <= 1 and value != 0.5),
    "ties": ("a share from 0 to below 1", lambda value: 0 <= value < 1),
    "d": ("a change in standard deviations, not 0,", lambda value: value != 0),
    "change": ("a change, not 0,", lambda value: value != 0),
    "sd": ("a standard deviation above 0", lambda value: value > 0),
    "accuracy": ("a change above 0 and up to 1, as 0.05 for five points,", lambda value: 0 < value <= 1),
    "discordance": ("a share above 0 and up to 1", lambda value: 0 < value <= 1),
    "n": ("a whole number of rows or votes, 2 or more,", lambda value: 2 <= value <= 1e12 and value == int(value)),
    "power": ("a chance between 0 and 1", lambda value: 0 < value < 1),
    "alpha": ("a chance between 0 and 1", lambda value: 0 < value < 1),
}
"""Every key with what its value must be, in words and as a test."""


@dataclass(frozen=True)
class Level:
    """The chance to find an effect that is there (``power``) and one that is not (``alpha``, two-sided)."""

    power: float = 0.8
    alpha: float = 0.05


LEVEL = Level()


def paired_rows(effect: float, level: Level = LEVEL) -> int:
    """Rows that show a mean change of ``effect`` standard deviations of the paired difference."""
    return _up((detectable(1.0, alpha=level.alpha, power=level.power) / effect) ** 2)


def paired_effect(n: int, level: Level = LEVEL) -> float:
    """The mean change that n rows show, in standard deviations of the paired difference."""
    return detectable(1 / math.sqrt(n), alpha=level.alpha, power=level.power)


def accuracy_rows(change: float, discordance: float, level: Level = LEVEL) -> int:
    """Rows on which McNemar's test shows a ``change`` of accuracy, if the models disagree on the share ``discordance`` of them."""
    rows = detectable(math.sqrt(discordance), alpha=level.alpha, power=level.power) ** 2 / change**2
    return max(_up(rows), _up(fewest_rows(level.alpha) / change))


def accuracy_change(n: int, discordance: float, level: Level = LEVEL) -> float:
    """The change of accuracy that n rows show; at least what the fewest disagreements that McNemar's test needs come to."""
    effect = detectable(math.sqrt(discordance / n), alpha=level.alpha, power=level.power)
    return max(effect, fewest_rows(level.alpha) / n)


def decided_pairs(win: float, level: Level = LEVEL) -> float:
    """Votes that are no ties with which the sign test shows the win rate ``win``; normal approximation, not rounded."""
    one, other = stats.norm.isf(level.alpha / 2), stats.norm.ppf(level.power)
    return float(((one * 0.5 + other * math.sqrt(win * (1 - win))) / (win - 0.5)) ** 2)


def decided_pairs_exact(win: float, level: Level = LEVEL) -> int | None:
    """The fewest votes that are no ties with which the exact sign test shows ``win``; None above `ENUMERATED`.

    The power of an exact test goes up in saw-teeth: a few votes more may have a little less of it.
    """
    about = decided_pairs(win, level)
    if about > ENUMERATED:
        return None
    fewest = fewest_rows(level.alpha)
    n = np.arange(max(fewest, int(0.8 * about) - 20), int(1.2 * about) + 4 * fewest)
    enough = n[sign_test_power(n, win, level.alpha) >= level.power]
    return int(enough[0]) if len(enough) else None


def sign_test_power(n: np.ndarray, win: float, alpha: float) -> np.ndarray:
    """The chance of p < alpha of the exact sign test on each number ``n`` of votes."""
    losses = stats.binom.ppf(alpha / 2, n, 0.5) - 1  # the most for which p < alpha
    return np.asarray(stats.binom.cdf(losses, n, win) + stats.binom.sf(n - losses - 1, n, win))


def win_rate(n: float, level: Level = LEVEL) -> float | None:
    """The win rate that n decided votes show; None where even one of 1 would not be shown."""
    if n < max(fewest_rows(level.alpha), decided_pairs(1.0, level)):
        return None
    return float(optimize.brentq(lambda win: decided_pairs(win, level) - n, 0.5 + 1e-6, 1.0))


def total_pairs(decided: float, ties: float) -> int:
    """Votes in all if the share ``ties`` of them is undecided."""
    return _up(decided / (1 - ties))


def power_text(effect: str) -> str:
    """The answer to ``ftcli eval --power EFFECT``.

    EFFECT is one of ``win=0.6[,ties=0.25]``, ``d=0.2``, ``change=0.05,sd=0.2``, ``accuracy=0.05,discordance=0.2``, or the reverse
    question ``n=100[,sd=..][,discordance=..][,ties=..]``, each with ``power=`` and ``alpha=`` where 0.8 and 0.05 are not meant.
    Raises `UsageError` for anything else.
    """
    given = _parse(effect)
    level = Level(given.pop("power", LEVEL.power), given.pop("alpha", LEVEL.alpha))
    if level.power <= level.alpha:
        raise _wrong(f"power={level.power:g} must be above alpha={level.alpha:g}")
    asked = [key for key in QUESTIONS if key in given]
    if len(asked) != 1:
        raise _wrong(f"one of {', '.join(QUESTIONS)} is needed" + (f", not {' and '.join(asked)}" if asked else ""))
    question = asked[0]
    for key in given:
        if key != question and key not in QUESTIONS[question]:
            takes = ", ".join((*QUESTIONS[question], "power", "alpha"))
            raise _wrong(f"{key} says nothing beside {question}, which takes {takes}")
    text = {"win": _votes, "d": _effect, "change": _mean_change, "accuracy": _accuracy, "n": _reverse}[question]
    return f"{text(given, level)}\n({level.power:.4g} power, two-sided alpha {level.alpha:g})"


def _votes(given: Mapping[str, float], level: Level) -> str:
    win, ties = given["win"], given.get("ties", 0.0)
    about, exact = decided_pairs(win, level), decided_pairs_exact(win, level)
    decided = about if exact is None else exact
    note = "" if exact is None else f"; {_up(about):,} by the normal approximation"
    text = f"A win rate of {win:g} among decided votes needs {_up(decided):,} of them (sign test{note})."
    if not ties:
        return text
    note = "" if exact is None else f" ({total_pairs(about, ties):,})"
    return f"{text}\nWith {ties:.4g} of all votes tied that is {total_pairs(decided, ties):,} pairs{note}."


def _effect(given: Mapping[str, float], level: Level) -> str:
    d = abs(given["d"])
    return f"A mean change of {d:g} standard deviations of the paired difference needs {paired_rows(d, level):,} rows."


def _mean_change(given: Mapping[str, float], level: Level) -> str:
    if "sd" not in given:
        raise _wrong("change needs sd, the standard deviation of the paired differences", "write change=0.05,sd=0.2")
    rows = paired_rows(abs(given["change"]) / given["sd"], level)
    return f"A mean change of {abs(given['change']):g}, where differences vary by {given['sd']:g}, needs {rows:,} rows."


def _accuracy(given: Mapping[str, float], level: Level) -> str:
    change, discordance = given["accuracy"], given.get("discordance")
    if discordance is None:
        raise _wrong(
            "accuracy needs discordance, the share of rows on which just one model is right",
            "write accuracy=0.05,discordance=0.2",
        )
    if discordance < change:
        raise _wrong(f"accuracy={change:g} cannot change by more than the discordance={discordance:g}")
    rows = accuracy_rows(change, discordance, level)
    return (
        f"A change of accuracy by {100 * change:.4g} points, where the models disagree on {100 * discordance:.4g} % of the rows, "
        f"needs {rows:,} rows (McNemar's test)."
    )


def _reverse(given: Mapping[str, float], level: Level) -> str:
    n = int(given["n"])
    if n < fewest_rows(level.alpha):
        return f"{n} rows or votes show nothing: a paired test needs {fewest_rows(level.alpha)} at the least."
    lines = [f"{n:,} rows or votes can show:"]
    every = len(given) == 1
    if "sd" in given or every:
        sd, unit = given.get("sd", 1.0), "" if "sd" in given else " standard deviations of the paired difference"
        lines.append(f"- a mean change of {sd * paired_effect(n, level):.3g}{unit}")
    for share in [given["discordance"]] if "discordance" in given else [0.1, 0.2] if every else []:
        points = 100 * accuracy_change(n, share, level)
        found = f"a change of accuracy by {points:.3g} points" if points <= 100 * share else "no change of accuracy"
        lines.append(f"- {found}, where the models disagree on {100 * share:.4g} % of the rows")
    if "ties" in given or every:
        decided = n * (1 - given.get("ties", 0.0))
        win = win_rate(decided, level)
        shown = "no win rate" if win is None else f"a win rate of {win:.3f}"
        lines.append(f"- {shown} among {math.floor(decided):,} decided votes")
    return "\n".join(lines)


def _parse(effect: str) -> dict[str, float]:
    given: dict[str, float] = {}
    for part in effect.split(","):
        key, equals, written = (piece.strip() for piece in part.partition("="))
        if key not in KEYS:
            raise _wrong(f"unknown key {key or '(nothing)'}; known: {', '.join(KEYS)}", nearest(key, KEYS))
        if key in given:
            raise _wrong(f"{key} is given twice")
        given[key] = _number(key, written if equals else "")
    return given


def _number(key: str, written: str) -> float:
    wanted, fits = KEYS[key]
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not fits(value):
        raise _wrong(f"{key}={written or '?'}: {wanted} is needed")
    return value


def _wrong(message: str, hint: str = "") -> UsageError:
    return UsageError(f"--power: {message}", hint or "as --power win=0.6,ties=0.25 or --power n=200")


def _up(value: float) -> int:
    """The next whole number; rounding errors do not make it one more."""
    return math.ceil(value - 1e-9)
