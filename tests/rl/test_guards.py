from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ftcli.rl.guards import GUARDS, HINTS, Alarm, Guards, GuardSettings
from ftcli.rl.ppo import PpoSettings, PpoTrainer
from ftcli.rl.rollout import Sampling
from ftcli.rl.sequences import Exchange, Prompt
from tests.rl.conftest import EOS, PAD, full_roles, scored

HEALTHY: dict[str, float | int | None] = {
    "objective/kl": 2.0,
    "objective/scores": 0.5,
    "objective/scores_std": 0.3,
    "policy/entropy_avg": 2.0,
    "policy/clipfrac_avg": 0.1,
    "loss/value_avg": 0.1,
    "val/explained_variance": 0.2,
    "rollout/length_mean": 20.0,
    "rollout/distinct2": 0.6,
    "rollout/score_length_corr": 0.2,
    "reward/above_ref_p99": 0.05,
}

BAD: list[tuple[str, dict[str, float], dict[str, float], str]] = [
    ("kl", {"objective/kl": 50.1}, {"objective/kl": 50.0}, "KL to the reference 50.1 nats a response, above max_kl 50"),
    ("negative_kl", {"objective/kl": -0.11}, {"objective/kl": -0.1}, "-0.110 nats a response, below -0.1"),
    ("entropy", {"policy/entropy_avg": 0.48}, {"policy/entropy_avg": 0.5}, "entropy 0.480 nats a token, 24% of 2.000"),
    ("length", {"rollout/length_mean": 40.2}, {"rollout/length_mean": 40.0}, "40.2 tokens, 20.0 at the start"),
    ("length", {"rollout/length_mean": 9.9}, {"rollout/length_mean": 10.0}, "9.9 tokens, 20.0 at the start"),
    ("length_score", {"rollout/score_length_corr": 0.81}, {"rollout/score_length_corr": 0.8}, "correlation +0.81"),
    ("length_score", {"rollout/score_length_corr": -0.9}, {"rollout/score_length_corr": -0.8}, "correlation -0.90"),
    ("above_reference", {"reward/above_ref_p99": 0.31}, {"reward/above_ref_p99": 0.3}, "31% of responses score above"),
    ("distinct2", {"rollout/distinct2": 0.29}, {"rollout/distinct2": 0.3}, "29.0% of token pairs are different, 60.0%"),
    ("no_spread", {"objective/scores_std": 0.0}, {"objective/scores_std": 0.001}, "all responses score 0.5"),
    ("clip", {"policy/clipfrac_avg": 0.51}, {"policy/clipfrac_avg": 0.5}, "51% of token ratios clipped"),
    (
        "critic",
        {"val/explained_variance": -5.0, "loss/value_avg": 0.21},
        {"val/explained_variance": -5.0, "loss/value_avg": 0.2},
        "explained variance -5.0 (limit -1) with the critic's loss 0.21 (0.1 at the start)",
    ),
    (
        "critic",
        {"val/explained_variance": -1.5, "policy/entropy_avg": 2.6},
        {"val/explained_variance": -1.0, "policy/entropy_avg": 2.6},
        "with entropy 2.6 (2 at the start)",
    ),
]
"""A guard, what makes it speak, what just does not, and what it says."""


def alarms(series: Sequence[dict[str, Any]], settings: GuardSettings | None = None) -> list[list[str]]:
    guards = Guards(settings)
    return [[alarm.name for alarm in guards.look(HEALTHY | changed)] for changed in series]


@pytest.mark.parametrize(("name", "bad", "just_good", "text"), BAD)
def test_each_guard_speaks_at_the_third_bad_rollout_in_a_row_and_once(
    name: str, bad: dict[str, float], just_good: dict[str, float], text: str
) -> None:
    assert alarms([{}, bad, bad, {}, bad, bad, bad, bad]) == [[], [], [], [], [], [], [name], []]
    assert alarms([{}, *[just_good] * 6]) == [[]] * 7
    guards = Guards(GuardSettings(patience=1))
    guards.look(HEALTHY)
    [alarm] = guards.look(HEALTHY | bad)
    assert text in alarm.text
    assert alarm.hint == HINTS[alarm.name]
    assert alarm.stops == (name == "kl")


def test_every_guard_has_a_case_here() -> None:
    assert {name for name, *_ in BAD} == set(GUARDS) == set(HINTS)


def test_after_a_good_rollout_the_next_episode_is_told_again() -> None:
    bad = {"objective/kl": 60.0}
    assert alarms([bad, bad, {}, bad, bad], GuardSettings(patience=2)) == [[], ["kl"], [], [], ["kl"]]


def test_the_text_says_for_how_long() -> None:
    guards = Guards()
    found = [guards.look(HEALTHY | {"objective/kl": kl}) for kl in (60.0, 70.0, 80.0)]
    assert found[:2] == [[], []]
    assert found[2] == [
        Alarm(
            "kl",
            "KL to the reference 80.0 nats a response, above max_kl 50 for 3 rollouts in a row",
            HINTS["kl"],
            stops=True,
        )
    ]


@pytest.mark.parametrize("missing", [None, float("nan"), "absent"])
def test_what_was_not_measured_counts_neither_way(missing: Any) -> None:
    for name, bad, _, _ in BAD:
        hole = dict.fromkeys(bad, missing)
        guards = Guards()
        found = []
        for changed in ({}, bad, hole, bad, hole, bad):
            metrics = {key: value for key, value in (HEALTHY | changed).items() if value != "absent"}
            found.append([alarm.name for alarm in guards.look(metrics)])
        assert found == [[], [], [], [], [], [name]]


def test_without_any_metrics_nothing_is_said() -> None:
    guards = Guards(GuardSettings(patience=1))
    assert [guards.look({}) for _ in range(4)] == [[]] * 4


def test_a_run_that_learns_raises_no_alarm() -> None:
    """Figures of a run whose score went from .22 to 1: KL to 3.3, entropy from 2.47 to 1.2, responses a little shorter."""
    scores = [0.219, 0.469, 0.469, 0.469, 0.688, 0.844, 0.906, 0.97, 0.969, 0.98]
    series = [
        {
            "objective/kl": 3.3 * place / 9,
            "objective/scores": score,
            "objective/scores_std": (score * (1 - score)) ** 0.5,
            "policy/entropy_avg": 2.47 - 1.27 * place / 9,
            "val/explained_variance": -3.0 if place > 6 else 0.1,  # few returns differ, the loss falls too
            "loss/value_avg": 0.1 - 0.01 * place,
            "rollout/length_mean": 20.0 - place,
        }
        for place, score in enumerate(scores)
    ]
    assert alarms(series) == [[]] * len(series)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("kl", {"max_kl": None}),
        ("entropy", {"min_entropy_share": None}),
        ("length", {"max_length_change": None}),
        ("length_score", {"max_score_length_corr": None}),
        ("above_reference", {"max_above_reference_share": None}),
        ("distinct2", {"min_distinct2_share": None}),
        ("clip", {"max_clip_fraction": None}),
    ],
)
def test_a_guard_with_a_limit_of_its_own_can_be_turned_off(name: str, off: dict[str, Any]) -> None:
    bad = next(bad for own, bad, *_ in BAD if own == name)
    assert alarms([{}, bad], GuardSettings(patience=1)) == [[], [name]]
    assert alarms([{}, bad], GuardSettings(patience=1, **off)) == [[], []]


def test_whose_alarm_stops_the_run_can_be_chosen() -> None:
    guards = Guards(GuardSettings(patience=1, stop_on=("entropy",)))
    guards.look(HEALTHY)
    found = guards.look(HEALTHY | {"objective/kl": 60.0, "policy/entropy_avg": 0.1})
    assert [(alarm.name, alarm.stops) for alarm in found] == [("kl", False), ("entropy", True)]


@pytest.mark.parametrize("settings", [{"stop_on": ("kl", "klk")}, {"patience": 0}])
def test_settings_that_would_never_act_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no guard named klk; there are kl, negative_kl|patience 0"):
        GuardSettings(**settings)


def test_a_resumed_run_raises_the_same_alarms() -> None:
    series = [HEALTHY | changed for changed in ({}, *[bad for _, bad, _, _ in BAD for _ in range(3)], {}, {})]
    whole = Guards(score_std=0.3)
    expected = [whole.look(metrics) for metrics in series]
    assert sum(map(len, expected)) >= len(GUARDS)
    for cut in range(len(series)):
        before = Guards(score_std=0.3)
        for metrics in series[:cut]:
            before.look(metrics)
        after = Guards(score_std=0.3)
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        assert [after.look(metrics) for metrics in series[cut:]] == expected[cut:]


def test_a_critic_worse_than_saying_the_mean_is_told_in_units_of_the_score() -> None:
    """Scores of deviation .3, divided by .15: a critic that says the mean has the loss 2 * 2 / 2 = 2."""
    guards = Guards(GuardSettings(patience=1), score_std=0.15)
    assert guards.look(HEALTHY | {"loss/value_avg": 49.0}) == []
    [alarm] = guards.look(HEALTHY | {"loss/value_avg": 51.0})
    assert alarm.name == "critic"
    assert "the critic's loss 51 is 26 times that of saying the mean (limit 25)" in alarm.text
    alike = {"objective/scores_std": 0.001, "loss/value_avg": 1.0}
    assert guards.look(HEALTHY | alike) == [], "once scores become alike, the widest spread counts"
    raw = Guards(GuardSettings(patience=1))
    assert raw.look(HEALTHY | {"loss/value_avg": 51.0}) == [], "not known what scores are divided by"


def test_responses_without_a_score_leave_open_how_alike_scores_are() -> None:
    """A rule that gives some responses 1 and is silent on the others, which then count as another score, teaches something."""
    silent = {"objective/scores": 1.0, "objective/scores_std": 0.0, "reward/unscored": 5}
    guards = Guards(GuardSettings(patience=1), score_std=1.0)
    assert [guards.look(HEALTHY | silent | {"loss/value_avg": loss}) for loss in (0.1, 9.0)] == [[], []]
    assert [alarm.name for alarm in guards.look(HEALTHY | silent | {"reward/unscored": 0})] == ["no_spread"]
    small = HEALTHY | {"objective/scores_std": 0.01, "loss/value_avg": 1e-4}
    assert guards.look(small) == []
    assert guards.look(small | {"reward/unscored": 5, "loss/value_avg": 0.125}) == []
    assert [alarm.name for alarm in guards.look(small | {"loss/value_avg": 0.125})] == ["critic"]


def brief(exchanges: Sequence[Exchange]) -> list[float]:
    return [1 - len(one.response) / 16 if one.ended else -0.2 for one in exchanges]


@pytest.mark.parametrize(("head_rate", "expected"), [(None, []), (0.1, ["critic"])], ids=["as it is", "too fast"])
def test_a_critic_that_learns_too_fast_is_caught(head_rate: float | None, expected: list[str]) -> None:
    prompts = [Prompt([2 + place % 30, 5, 7]) for place in range(64)]
    settings = PpoSettings(
        total_rollouts=4, rollout_batch_size=32, micro_batch_size=32, learning_rate=1e-3, critic_learning_rate=1e-2
    )
    sampling = Sampling(frozenset({EOS}), PAD, 16)
    trainer = PpoTrainer(full_roles(), scored(brief), prompts, settings, sampling)
    if head_rate:  # what `ftcli.rl.ppo.HEAD_STEP` prevents
        trainer.optimizer.param_groups[2]["peak_lr"] = head_rate
    guards = Guards(GuardSettings(max_length_change=None, max_score_length_corr=None), trainer.scale.std)
    found = []
    while not trainer.is_done:
        found += [alarm.name for alarm in guards.look(trainer.step())]
    assert found == expected
    assert torch.isfinite(trainer.roles.head_parameters()[0]).all()
