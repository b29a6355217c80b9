"""Alarms of a PPO run: signs in the metrics of its rollouts that the policy cheats the reward, or that training broke.

Each guard looks at one rollout at a time and knows the first one, which the starting policy sampled. It speaks after
``patience`` bad rollouts in a row, once, and again only after a good one came between. A metric that is missing, None
or NaN counts neither as bad nor as good. Guards name what is often seen when a reward is exploited (Gao et al. 2023,
arXiv 2210.10760, for the KL; Singhal et al. 2023, arXiv 2310.03716, for length); none of them is a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Metrics = Mapping[str, float | int | None]
GuardName = Literal[
    "kl",
    "negative_kl",
    "entropy",
    "length",
    "length_score",
    "above_reference",
    "distinct2",
    "no_spread",
    "clip",
    "critic",
]
GUARDS: tuple[GuardName, ...] = get_args(GuardName)

ALIKE = 1e-6
"""Scores whose standard deviation is below this part of their mean (or of 1) are all alike but for rounding."""
MIN_KL = -0.1
"""The mean KL cannot be negative but by chance; below this, sampling and scoring differ (``negative_kl``)."""
MIN_EXPLAINED_VARIANCE = -1.0
CRITIC_LOSS_GROWTH, CRITIC_ENTROPY_GROWTH = 2.0, 1.25
"""A critic that explains less of the returns than this harms once its loss, or the policy's entropy, is so many times the first
(``critic``). An explained variance far below 0 alone says little: it falls there too when all scores become alike."""
MAX_CRITIC_ERROR = 25.0
"""Most of `CRITIC_ERROR`, an error of five standard deviations of the scores (``critic``)."""
CRITIC_ERROR = "critic_error"
"""The critic's loss over that of one that always says the mean score. It tells what the explained variance does not where returns
are bootstrapped from the critic's own values: wrong values make both vary alike."""


@dataclass(frozen=True)
class GuardSettings:
    """Limits that a run may set; None turns a guard off. ``negative_kl``, ``no_spread`` and ``critic`` are always on."""

    max_kl: float | None = 50.0
    """Mean KL of a response to the reference, in nats (guard ``kl``)."""
    min_entropy_share: float | None = 0.25
    """Entropy of a token's distribution as a share of the first rollout's (``entropy``)."""
    max_length_change: float | None = 2.0
    """Mean length over the first rollout's, or the reverse (``length``)."""
    max_score_length_corr: float | None = 0.8
    """Absolute correlation of score and length within a rollout (``length_score``)."""
    max_above_reference_share: float | None = 0.3
    """Share of responses that score above the 99th percentile of chosen answers (``above_reference``)."""
    min_distinct2_share: float | None = 0.5
    """Share of different token pairs, as a share of the first rollout's (``distinct2``)."""
    max_clip_fraction: float | None = 0.5
    """Share of tokens whose probability ratio was clipped (``clip``)."""
    patience: int = 3
    """Bad rollouts in a row before an alarm."""
    stop_on: tuple[GuardName, ...] = ("kl",)
    """Guards whose alarm ends the run; the others warn."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.stop_on) - set(GUARDS))
        if unknown:
            raise ValueError(f"no guard named {', '.join(unknown)}; there are {', '.join(GUARDS)}")
        if self.patience < 1:
            raise ValueError(f"patience {self.patience} is below 1")


@dataclass(frozen=True)
class Alarm:
    """What a guard says: figures and limit in ``text``, what to change in ``hint``."""

    name: GuardName
    text: str
    hint: str
    stops: bool


class Guards:
    """Looks at the metrics of each rollout in turn (`ftcli.rl.statistics.describe`); its state belongs to a checkpoint.

    ``score_std`` is what raw scores are divided by before the critic learns them; None leaves `MAX_CRITIC_ERROR` out. A rollout
    with responses that no source scored says nothing of how alike scores are: those stand for a score that others may not have.
    """

    def __init__(self, settings: GuardSettings | None = None, score_std: float | None = None) -> None:
        self.settings = settings or GuardSettings()
        self._score_std = score_std
        self._widest_spread = 0.0
        self._first: dict[str, float] = {}
        self._streaks: dict[GuardName, int] = dict.fromkeys(GUARDS, 0)

    def look(self, metrics: Metrics) -> list[Alarm]:
        """The alarms that begin with this rollout."""
        now = {name: float(value) for name, value in metrics.items() if value is not None and not math.isnan(value)}
        self._first = {name: now[name] for name in COMPARED if name in now} | self._first
        is_scored = not now.get("reward/unscored")
        if self._score_std and is_scored:
            self._widest_spread = max(self._widest_spread, now.get("objective/scores_std", 0.0) / self._score_std)
        if self._widest_spread and is_scored and "loss/value_avg" in now:
            now[CRITIC_ERROR] = now["loss/value_avg"] / (0.5 * self._widest_spread**2)
        alarms = []
        for name in GUARDS:
            found = LOOKS[name](now, self._first, self.settings)
            if found is None:
                continue
            self._streaks[name] = self._streaks[name] + 1 if found else 0
            if found and self._streaks[name] == self.settings.patience:
                text = (
                    f"{found} for {self.settings.patience} rollouts in a row" if self.settings.patience > 1 else found
                )
                alarms.append(Alarm(name, text, HINTS[name], name in self.settings.stop_on))
        return alarms

    def state_dict(self) -> dict[str, Any]:
        return {
            "first": dict(self._first),
            "widest_spread": self._widest_spread,
            "streaks": dict(self._streaks),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._first = dict(state["first"])
        self._widest_spread = state["widest_spread"]
        self._streaks = dict.fromkeys(GUARDS, 0) | dict(state["streaks"])


COMPARED = ("policy/entropy_avg", "rollout/length_mean", "rollout/distinct2", "loss/value_avg")
"""Metrics whose first value is remembered."""

Values = Mapping[str, float]
Look = Callable[[Values, Values, GuardSettings], str | None]
"""From the values of a rollout, first values and settings: what is bad, '' if nothing is, None where that cannot be said."""


def _kl(now: Values, first: Values, settings: GuardSettings) -> str | None:
    kl, limit = now.get("objective/kl"), settings.max_kl
    if kl is None or limit is None:
        return None
    return f"KL to the reference {kl:.1f} nats a response, above max_kl {limit:g}" if kl > limit else ""


def _negative_kl(now: Values, first: Values, settings: GuardSettings) -> str | None:
    kl = now.get("objective/kl")
    if kl is None:
        return None
    return f"KL to the reference {kl:.3f} nats a response, below {MIN_KL:g}" if kl < MIN_KL else ""


def _entropy(now: Values, first: Values, settings: GuardSettings) -> str | None:
    found = _share("policy/entropy_avg", now, first)
    limit = settings.min_entropy_share
    if found is None or limit is None:
        return None
    value, start, share = found
    text = f"entropy {value:.3f} nats a token, {share:.0%} of {start:.3f} at the start (limit {limit:.0%})"
    return text if share < limit else ""


def _length(now: Values, first: Values, settings: GuardSettings) -> str | None:
    found = _share("rollout/length_mean", now, first)
    limit = settings.max_length_change
    if found is None or limit is None:
        return None
    value, start, share = found
    is_bad = share > limit or share < 1 / limit
    text = f"responses of {value:.1f} tokens, {start:.1f} at the start (limit {limit:g} times either way)"
    return text if is_bad else ""


def _length_score(now: Values, first: Values, settings: GuardSettings) -> str | None:
    value, limit = now.get("rollout/score_length_corr"), settings.max_score_length_corr
    if value is None or limit is None:
        return None
    return f"correlation {value:+.2f} of score and length (limit {limit:g} either way)" if abs(value) > limit else ""


def _above_reference(now: Values, first: Values, settings: GuardSettings) -> str | None:
    share, limit = now.get("reward/above_ref_p99"), settings.max_above_reference_share
    if share is None or limit is None:
        return None
    text = f"{share:.0%} of responses score above the 99th percentile of chosen answers (limit {limit:.0%})"
    return text if share > limit else ""


def _distinct2(now: Values, first: Values, settings: GuardSettings) -> str | None:
    found = _share("rollout/distinct2", now, first)
    limit = settings.min_distinct2_share
    if found is None or limit is None:
        return None
    value, start, share = found
    text = f"{value:.1%} of token pairs are different, {start:.1%} at the start (limit {limit:.0%} of it)"
    return text if share < limit else ""


def _no_spread(now: Values, first: Values, settings: GuardSettings) -> str | None:
    spread, mean = now.get("objective/scores_std"), now.get("objective/scores", 0.0)
    if spread is None or now.get("reward/unscored"):
        return None
    return f"all responses score {mean:.4g}" if spread <= ALIKE * max(abs(mean), 1.0) else ""


def _clip(now: Values, first: Values, settings: GuardSettings) -> str | None:
    share, limit = now.get("policy/clipfrac_avg"), settings.max_clip_fraction
    if share is None or limit is None:
        return None
    return f"{share:.0%} of token ratios clipped (limit {limit:.0%})" if share > limit else ""


def _critic(now: Values, first: Values, settings: GuardSettings) -> str | None:
    verdicts = [_critic_error(now), _critic_harm(now, first)]
    known = [verdict for verdict in verdicts if verdict is not None]
    return "; ".join(filter(None, known)) if known else None


def _critic_error(now: Values) -> str | None:
    error, limit = now.get(CRITIC_ERROR), MAX_CRITIC_ERROR
    if error is None:
        return None
    text = (
        f"the critic's loss {now['loss/value_avg']:.3g} is {error:.0f} times that of saying the mean (limit {limit:g})"
    )
    return text if error > limit else ""


def _critic_harm(now: Values, first: Values) -> str | None:
    explained, limit = now.get("val/explained_variance"), MIN_EXPLAINED_VARIANCE
    if explained is None:
        return None
    grown = []
    for name, title, most in (
        ("loss/value_avg", "the critic's loss", CRITIC_LOSS_GROWTH),
        ("policy/entropy_avg", "entropy", CRITIC_ENTROPY_GROWTH),
    ):
        found = _share(name, now, first)
        if found and found[2] > most:
            grown.append(f"{title} {found[0]:.3g} ({found[1]:.3g} at the start)")
    text = f"explained variance {explained:.1f} (limit {limit:g}) with {' and '.join(grown)}"
    return text if explained < limit and grown else ""


def _share(name: str, now: Values, first: Values) -> tuple[float, float, float] | None:
    """Value, first value and their quotient."""
    if name not in now or not first.get(name):
        return None
    return now[name], first[name], now[name] / first[name]


LOOKS: Mapping[GuardName, Look] = {
    "kl": _kl,
    "negative_kl": _negative_kl,
    "entropy": _entropy,
    "length": _length,
    "length_score": _length_score,
    "above_reference": _above_reference,
    "distinct2": _distinct2,
    "no_spread": _no_spread,
    "clip": _clip,
    "critic": _critic,
}

HINTS: Mapping[GuardName, str] = {
    "kl": "raise kl_coef or set kl_target, lower learning_rate, or end earlier with a smaller total_episodes",
    "negative_kl": "sampling and scoring do not agree: set precision to fp32; if it stays, the rollout engine samples from "
    "other weights or truncates its distribution",
    "entropy": "the policy is collapsing on few answers: raise kl_coef, lower learning_rate, or stop earlier",
    "length": "read samples.jsonl; if length alone earns the score, train the reward on pairs of equal length, or add a "
    "reward function that counts tokens",
    "length_score": "the score follows length: see the length figures of the reward model's report, or add a reward "
    "function that counts tokens",
    "above_reference": "scores leave the range in which the reward model was trained: raise kl_coef, stop earlier, or train "
    "it on answers of this policy",
    "distinct2": "answers repeat themselves: raise kl_coef, or add a reward function against repetition",
    "no_spread": "equal scores teach nothing: stop here if this is the best score there is, else use prompts or a reward "
    "that tell answers apart",
    "clip": "updates are too large: lower learning_rate or num_ppo_epochs, or set early_stop_approxkl",
    "critic": "the critic misleads the policy: lower critic_learning_rate, try value_init head_only or zero, or lam 1",
}
