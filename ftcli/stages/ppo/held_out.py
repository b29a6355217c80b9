"""What a policy answers on fixed held-out prompts at the start, on the way and at the end, with the same draws.

Beside the reward that is optimised stand sources that never are: where the first rises and those do not, the policy has
learnt to please the reward and nothing else (over-optimisation, Gao et al. 2023, arXiv 2210.10760).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from ftcli.core.errors import StageFailed
from ftcli.metrics.statistics import difference, mean_of
from ftcli.rl.ranks import Ranks
from ftcli.rl.reward_sources import RewardSource
from ftcli.rl.rewards import Score
from ftcli.rl.roles import Roles
from ftcli.rl.rollout import Sampling, sample_exchanges, score_exchanges, sequence_kl
from ftcli.rl.sequences import Exchange, Prompt

if TYPE_CHECKING:
    import torch

    from ftcli.rl.engines import RolloutEngine

CHECKED = 8
"""Answers on which the reference is compared with the starting policy."""


@dataclass(frozen=True)
class Answer:
    """One answer: its tokens, whether it ended, the raw score with its ``parts`` by source, log policy - log reference over all
    its tokens, and what the sources say that are not optimised (``evals``)."""

    response: list[int]
    ended: bool
    score: float
    kl: float
    parts: dict[str, float | None] = field(default_factory=dict)
    evals: dict[str, float | None] = field(default_factory=dict)

    @property
    def judged(self) -> float | None:
        """``score``, or None where no source had anything to say, so that it stands for nothing."""
        return self.score if any(part is not None for part in self.parts.values()) else None


@dataclass(frozen=True)
class Exam:
    """Answers of one policy to the held-out prompts, in their order."""

    answers: list[Answer]

    @property
    def judged(self) -> list[float | None]:
        """`Answer.judged` of each answer."""
        return [answer.judged for answer in self.answers]

    @property
    def known(self) -> list[float]:
        """The scores of those answers that have one."""
        return _known(self.judged)

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(answer) for answer in self.answers]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> Exam:
        return cls([Answer(**answer) for answer in data])

    def summary(self) -> dict[str, float | None]:
        """Means over the answers, under their names in metrics.jsonl; None where a source skipped all of them."""
        evals = {name: _known([one.evals[name] for one in self.answers]) for name in self.answers[0].evals}
        return {
            "eval/score": fmean(self.known) if self.known else None,
            "eval/kl": fmean(one.kl for one in self.answers),
            "eval/length": fmean(len(one.response) for one in self.answers),
            "eval/eos_rate": fmean(one.ended for one in self.answers),
            **{f"eval_reward/{name}": fmean(values) if values else None for name, values in evals.items()},
        }


@dataclass(frozen=True)
class Examiner:
    """Asks the policy the held-out ``prompts``. ``evals`` are reward sources that are never optimised."""

    roles: Roles
    engine: RolloutEngine
    score: Score
    prompts: Sequence[Prompt]
    sampling: Sampling
    seed: int
    micro_batch_size: int
    device: torch.device
    ranks: Ranks
    evals: Mapping[str, RewardSource] = field(default_factory=dict)

    def sampled(self, rollout: int) -> Exam:
        """One answer to each prompt, sampled by the policy as it is after ``rollout`` rollouts; equal policies give equal
        answers.

        After 0 rollouts the policy still is its own reference, so every KL is 0. That is checked on the first answers, and
        `StageFailed` raised where it does not hold.
        """
        return self._ask(rollout, self.prompts, self.sampling)

    def greedy(self, rollout: int, count: int) -> Exam:
        """The most likely answers to the first ``count`` prompts; their KL is measured at the temperature of sampling."""
        return self._ask(rollout, self.prompts[:count], replace(self.sampling, temperature=0.0))

    def _ask(self, rollout: int, prompts: Sequence[Prompt], decoding: Sampling) -> Exam:
        if not prompts:
            return Exam([])
        keys = [f"held-out/{place}" for place in range(len(prompts))]
        self.engine.sync(self.roles.sampler(), rollout)
        exchanges = sample_exchanges(self.roles, self.engine, prompts, keys, decoding, self.seed, self.ranks)
        kl = self._kl(exchanges if rollout else exchanges[:CHECKED])
        if not rollout:
            check_reference(kl)
            kl = [0.0] * len(exchanges)
        scores = score_exchanges(self.score, exchanges, self.ranks)
        evals = {name: source(exchanges) for name, source in self.evals.items()}
        return Exam(
            [
                Answer(
                    one.response,
                    one.ended,
                    scores.total[place],
                    kl[place],
                    {name: values[place] for name, values in scores.parts.items()},
                    {name: values[place] for name, values in evals.items()},
                )
                for place, one in enumerate(exchanges)
            ]
        )

    def _kl(self, exchanges: Sequence[Exchange]) -> list[float]:
        return sequence_kl(self.roles, exchanges, self.sampling, self.micro_batch_size, self.device, self.ranks)


def check_reference(kl: Sequence[float]) -> None:
    """The reference must be the starting policy exactly; a wrong one (say, the bare base) would pull the policy away
    from it."""
    largest = max(map(abs, kl))
    if largest > 0:
        raise StageFailed(
            f"the reference is not the starting policy: before any update their log-probs differ by {largest:g} over a response",
            "set precision to fp32; if it stays, report it as a bug",
        )


def compare(before: Exam, after: Exam) -> dict[str, float | int | None]:
    """Both summaries and the paired changes, under the names that go to stage.json.

    ``eval/score`` is what is optimised, ``eval_source/<name>`` its sources where there are several, ``eval_reward/<name>`` what is
    not optimised. ``_gap`` is by how many standard deviations of the starting policy's answers the score rose more than that.
    """
    first, second = before.summary(), after.summary()
    others = ("eval/length", "eval/eos_rate")
    found: dict[str, float | int | None] = {
        "eval/prompts": len(before.answers),
        **_change("eval/score", before.judged, after.judged),
        **{f"{name}_before": first[name] for name in others},
        **{f"{name}_after": second[name] for name in others},
        "eval/kl": second["eval/kl"],
    }
    sources = before.answers[0].parts
    for name in sources if len(sources) > 1 else ():
        values = ([one.parts[name] for one in exam.answers] for exam in (before, after))
        found |= _change(f"eval_source/{name}", *values)
    for name in before.answers[0].evals:
        own, later = ([one.evals[name] for one in exam.answers] for exam in (before, after))
        found |= _change(f"eval_reward/{name}", own, later)
        found[f"eval_reward/{name}_gap"] = _gap((before.judged, after.judged), (own, later))
    return found


Values = Sequence[float | None]


ROUNDING = 1e-9
CHANGE = ("before", "after", "change", "change_se", "change_z", "change_low", "change_high", "change_p", "n")


def _change(name: str, before: Values, after: Values) -> dict[str, float | int | None]:
    """Means and the paired change, with standard error, 95 % bootstrap interval and permutation p, over the answers that have
    both values; None what they are too few or too alike for."""
    first, second = _both(before, after)
    found: dict[str, float | int | None] = dict.fromkeys(CHANGE)
    if first:
        change = difference(mean_of(first), mean_of(second))
        found |= {
            "before": fmean(first),
            "after": fmean(second),
            "change": change.delta,
            "change_se": change.se,
            "change_z": change.delta / change.se if change.se > ROUNDING * abs(change.delta) else None,
            "change_low": change.low,
            "change_high": change.high,
            "change_p": change.p,
        }
    found = {part: None if value is None or math.isnan(value) else value for part, value in found.items()}
    return {f"{name}_{part}": value for part, value in (found | {"n": len(first)}).items()}


def _gap(optimised: tuple[Values, Values], held_out: tuple[Values, Values]) -> float | None:
    """How much more the first rose than the second, both in standard deviations before; None where one does not vary."""
    rises = []
    for before, after in (optimised, held_out):
        first, second = _both(before, after)
        spread = stdev(first) if len(first) > 1 else 0.0
        if not spread:
            return None
        rises.append((fmean(second) - fmean(first)) / spread)
    return rises[0] - rises[1]


def _both(before: Values, after: Values) -> tuple[list[float], list[float]]:
    pairs = [(one, two) for one, two in zip(before, after, strict=True) if one is not None and two is not None]
    return [one for one, _ in pairs], [two for _, two in pairs]


def _known(values: Values) -> list[float]:
    return [value for value in values if value is not None]
