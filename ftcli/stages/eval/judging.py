"""Judges: the project's reward model, and a language model that is shown two answers in both orders.

Each gives for every answered row the probability that a model's answer is better than the baseline's; its mean is the win rate. A
language model is believed only where it says the same in both orders often enough, and knows the better answer of pairs that leave
no doubt; otherwise its figures may not gate. A reward model that a policy was trained to please is no judge of that policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ftcli.core.stage import Artifact
from ftcli.data.rows import Row, prompt_of
from ftcli.metrics.figures import Figure, Figures
from ftcli.metrics.names import Metric
from ftcli.metrics.statistics import mean_of
from ftcli.metrics.win_rates import length_controlled, length_correlation
from ftcli.stages.eval.judge_prompt import CALIBRATION, Pair, request_of, version
from ftcli.stages.eval.outcome import Outcome
from ftcli.stages.eval.rewards import trained_against

LEAST_CONSISTENCY = 0.6
LEAST_CALIBRATION = 0.8
MOST_FAILURES = 0.05
"""Share of verdicts that cannot be read beyond which those that can are no fair sample."""
TIE = 0.5

BY_REWARD = "judge.reward"
BY_MODEL = "judge.llm"
REWARDS = ("reward_greedy", "reward_sampled")
"""Metrics that may not gate where the reward model may not judge."""
METRICS = {
    BY_REWARD: Metric(
        "Win rate, reward model",
        "judge",
        True,
        3,
        "mean of sigma(score - baseline's score) over greedy answers",
        margin=0.05,
    ),
    BY_MODEL: Metric(
        "Win rate, judge",
        "judge",
        True,
        3,
        "mean probability that the judge prefers the answer, over both orders",
        margin=0.05,
    ),
}


class Judge(Protocol):
    """Someone who reads two answers. ``who`` tells people; win rates of two evaluations compare where ``identity`` is the same."""

    who: str
    identity: str

    def prefers_first(self, pairs: Sequence[Pair]) -> list[float | None]:
        """The probability that the first answer of each pair is called better, None where there is no verdict to be read."""


@dataclass(frozen=True)
class Judging:
    """``figures`` by model, ``described`` for metrics.json.

    ``unfit`` has the reason for each metric that may not gate: ``judge.llm``, or ``LABEL.judge.reward`` for that of one model.
    """

    figures: dict[str, Figures] = field(default_factory=dict)
    described: list[dict[str, Any]] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Verdicts:
    """The metric ``name`` of each model in ``wins``: for each row of ``ids`` the probability that its answer is better than that of
    ``baseline``, None where there is no verdict."""

    name: str
    baseline: str
    ids: Sequence[str]
    wins: Mapping[str, Sequence[float | None]]
    signature: str
    comparable: str

    def figures(self) -> dict[str, Figures]:
        """With the baseline's: against itself every answer is a tie, so the win rate is compared like any other figure."""
        found: dict[str, Figures] = {}
        for label, values in {self.baseline: [TIE] * len(self.ids), **self.wins}.items():
            known = [value for value in values if value is not None]
            ids = tuple(id for id, value in zip(self.ids, values, strict=True) if value is not None)
            if known:
                figure = Figure(self.name, METRICS[self.name], mean_of(known), ids, self.signature, self.comparable)
                found[label] = {self.name: figure}
        return found

    def described(self, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
        """How many there are, and what length has to do with them; in characters, since tokenizers may differ."""
        controlled: dict[str, float | None] = {}
        all_known: list[float] = []
        all_longer: list[float] = []
        for label, values in self.wins.items():
            answers = zip(values, outcomes[label].greedy, outcomes[self.baseline].greedy, strict=True)
            pairs = [(value, len(own.text) - len(other.text)) for value, own, other in answers if value is not None]
            known, longer = [value for value, _ in pairs], [float(more) for _, more in pairs]
            controlled[label] = length_controlled(known, longer)
            all_known += known
            all_longer += longer
        return {
            "metric": self.name,
            "pairs": len(all_known),
            "length_controlled": controlled,
            "length_correlation": length_correlation(all_known, all_longer),
        }


def judge_by_reward(
    reward: Artifact, models: Sequence[Artifact], ids: Sequence[str], outcomes: Mapping[str, Outcome]
) -> Judging:
    """Win rates against the first model from the reward model's scores of greedy answers: no positions, and one pass an answer.

    A model that was trained to please ``reward`` may not be gated by it; where the first was, none may.
    """
    baseline = models[0].label
    wins = {
        model.label: [
            _sigma(own - other)
            for own, other in zip(outcomes[model.label].greedy_scores, outcomes[baseline].greedy_scores, strict=True)
        ]
        for model in models[1:]
    }
    verdicts = _Verdicts(BY_REWARD, baseline, ids, wins, "greedy|sigma of the difference", f"reward {reward.digest}")
    pleasing = [model for model in models if trained_against(model, reward)]
    unfit = {f"{model.label}.{name}": circular([model], reward) for model in pleasing for name in (BY_REWARD, *REWARDS)}
    if models[0] in pleasing:
        unfit[BY_REWARD] = f"{circular(models[:1], reward)}, and all are compared with it"
    described = {
        "kind": "reward",
        "who": reward.ref,
        "consistency": None,
        "calibration": None,
        "first_share": None,
        "failures": 0,
        "fit": models[0] not in pleasing and len(pleasing) < len(models) - 1,
        "why": "; ".join([circular(pleasing, reward)] * bool(pleasing) + _unknown(models[1:])),
    }
    return Judging(verdicts.figures(), [verdicts.described(outcomes) | described], unfit)


def circular(models: Sequence[Artifact], reward: Artifact) -> str:
    """Which of ``models`` were trained to please ``reward`` and so may not be gated by it, in words; "" for none."""
    found = [model.label for model in models if trained_against(model, reward)]
    return (
        f"{' and '.join(found)} {'was' if len(found) == 1 else 'were'} trained to please {reward.ref}" if found else ""
    )


def _unknown(models: Sequence[Artifact]) -> list[str]:
    return [f"whether {model.label} was trained to please it is not known" for model in models if not model.made]


def judge_by_model(
    judge: Judge, models: Sequence[Artifact], rows: Sequence[Row], outcomes: Mapping[str, Outcome]
) -> Judging:
    """Win rates against the first model by a language model. Equal answers are a tie and are not shown to it."""
    baseline = models[0].label
    wins: dict[str, list[float | None]] = {}
    shown: list[Orders] = []
    for model in models[1:]:
        pairs = [
            Pair(request_of(prompt_of(row)), own.text, other.text)
            for row, own, other in zip(rows, outcomes[model.label].greedy, outcomes[baseline].greedy, strict=True)
        ]
        places = [place for place, pair in enumerate(pairs) if pair.first.strip() != pair.second.strip()]
        found = _both_orders(judge, [pairs[place] for place in places])
        wins[model.label] = [TIE] * len(pairs)
        for place, orders in zip(places, found, strict=True):
            wins[model.label][place] = _win(orders)
        shown += found
    ids = [str(row["id"]) for row in rows]
    signature = f"greedy|both orders|question {version()}"
    verdicts = _Verdicts(BY_MODEL, baseline, ids, wins, signature, f"judge {judge.identity}")
    told = _trial(shown, _both_orders(judge, CALIBRATION))
    why = _why_unfit(told, len(shown))
    described = {"kind": "llm", "who": judge.who, **told, "fit": not why, "why": why}
    return Judging(verdicts.figures(), [verdicts.described(outcomes) | described], {BY_MODEL: why} if why else {})


def marked(figures: Mapping[str, Figures], judgings: Sequence[Judging]) -> dict[str, Figures]:
    """``figures`` with the reason in those that may not gate, so that a later comparison with them knows it too."""
    unfit = {name: why for judging in judgings for name, why in judging.unfit.items()}
    return {
        label: {
            name: replace(figure, unfit=unfit.get(name) or unfit.get(f"{label}.{name}", figure.unfit))
            for name, figure in own.items()
        }
        for label, own in figures.items()
    }


Orders = tuple[float | None, float | None]
"""The probability that what stands first is called better, as given and with the answers swapped."""


def _both_orders(judge: Judge, pairs: Sequence[Pair]) -> list[Orders]:
    if not pairs:
        return []
    found = judge.prefers_first([*pairs, *(pair.swapped() for pair in pairs)])
    return list(zip(found[: len(pairs)], found[len(pairs) :], strict=True))


def _win(orders: Orders) -> float | None:
    """The probability that a pair's first answer is better, both places given equal weight; one order alone is no verdict."""
    forward, backward = orders
    return None if forward is None or backward is None else (forward + 1 - backward) / 2


def _read(found: Sequence[Orders]) -> list[tuple[float, float]]:
    return [(forward, backward) for forward, backward in found if forward is not None and backward is not None]


def _trial(shown: Sequence[Orders], calibration: Sequence[Orders]) -> dict[str, Any]:
    """How the judge did: on the answers that it was ``shown``, and on pairs whose first answer is better.

    ``consistency``  share of pairs with the same verdict in both orders (a tie is one), of those that could be read
    ``calibration``  share of the known pairs whose better answer it prefers in both orders; without a verdict it is wrong. That it
                     wins over both orders would be too little: a model that prefers the first place by 0.9 tells 0.88 from 0.89
    ``first_share``  mean probability of the answer that stands first: one half without a preference for places
    ``failures``     pairs without a verdict
    """
    read = _read(shown)
    same = sum(_sign(forward) == -_sign(backward) for forward, backward in read)
    right = sum(forward > TIE > backward for forward, backward in _read(calibration))
    firsts = [value for orders in read for value in orders]
    return {
        "consistency": same / len(read) if read else None,
        "calibration": right / len(calibration),
        "first_share": sum(firsts) / len(firsts) if firsts else None,
        "failures": len(shown) - len(read),
    }


def _why_unfit(told: Mapping[str, Any], asked: int) -> str:
    """Why the judge is not to be believed; "" if it is."""
    why = []
    if told["failures"] > MOST_FAILURES * asked:
        why.append(f"{told['failures']} of {asked} pairs have no verdict, {MOST_FAILURES:.0%} may have none")
    if told["consistency"] is not None and told["consistency"] < LEAST_CONSISTENCY:
        why.append(
            f"it says the same in both orders for {told['consistency']:.0%} of pairs, {LEAST_CONSISTENCY:.0%} are needed"
        )
    if told["calibration"] < LEAST_CALIBRATION:
        why.append(
            f"it is right on {told['calibration']:.0%} of pairs without doubt, {LEAST_CALIBRATION:.0%} are needed"
        )
    return "; ".join(why)


def _sign(probability: float) -> int:
    return (probability > TIE) - (probability < TIE)


def _sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
