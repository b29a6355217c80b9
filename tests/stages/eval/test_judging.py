"""Judges whose ways are known: what is believed of each, and what win rates they give. Expected figures are counted by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.stage import Artifact, Kind
from ftcli.metrics.comparison import Drawing, compare
from ftcli.metrics.figures import read_figures, write_figures
from ftcli.metrics.gates import judge_gate
from ftcli.metrics.rules import Rule
from ftcli.stages.eval.judge_prompt import CALIBRATION, Pair, request_of, version
from ftcli.stages.eval.judging import BY_MODEL, BY_REWARD, Judging, circular, judge_by_model, judge_by_reward, marked
from ftcli.stages.eval.outcome import Answer, Outcome

REWARD = Artifact(Kind.REWARD, "stages/reward/0123456789ab/reward", Path("r"), "sha256:reward")
WORSE = {pair.second for pair in CALIBRATION}
BETTER = {pair.first for pair in CALIBRATION}


def model(label: str, *digests: str, is_made: bool = True) -> Artifact:
    """A model whose making read inputs with these digests."""
    inputs = {"reward": [{"digest": digest} for digest in digests]}
    return Artifact(
        Kind.MODEL, label, Path(label), f"sha256:{label}", label, made={"s": {"inputs": inputs}} if is_made else {}
    )


def outcome(texts: Sequence[str], scores: Sequence[float] = ()) -> Outcome:
    return Outcome(greedy=[Answer(text, [5, 2], "stop") for text in texts], greedy_scores=list(scores))


def row(index: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {index}"}, {"role": "assistant", "content": "reference"}]
    return {"id": f"row-{index}", "messages": messages, "meta": {}}


@dataclass
class Simulated:
    """Says of each pair what ``prefers`` says, and keeps what it was shown."""

    prefers: Callable[[Pair], float | None]
    who: str = "simulated"
    identity: str = "simulated"
    shown: list[Pair] = field(default_factory=list)

    def prefers_first(self, pairs: Sequence[Pair]) -> list[float | None]:
        self.shown += pairs
        return [self.prefers(pair) for pair in pairs]


def quality(text: str) -> float:
    """Of calibration answers, and of answers such as ``lora 3 good``."""
    return float("good" in text or text in BETTER) - float("bad" in text or text in WORSE)


def perfect(pair: Pair) -> float:
    return 0.5 + 0.5 * (quality(pair.first) > quality(pair.second)) - 0.5 * (quality(pair.first) < quality(pair.second))


def judged(prefers: Callable[[Pair], float | None], n: int = 40, good: int = 30) -> tuple[Judging, Simulated]:
    """``n`` rows of which lora answers the first ``good`` well and the others badly, where base is neither."""
    judge = Simulated(prefers)
    outcomes = {
        "base": outcome([f"base {index}" for index in range(n)]),
        "lora": outcome([f"lora {index} {'good' if index < good else 'bad'}" for index in range(n)]),
    }
    return judge_by_model(judge, [model("base"), model("lora")], [row(index) for index in range(n)], outcomes), judge


def test_a_perfect_judge_is_fit_and_its_win_rate_is_the_share_of_better_answers() -> None:
    judging, judge = judged(perfect)
    assert judging.unfit == {}
    [told] = judging.described
    assert (told["consistency"], told["calibration"], told["first_share"], told["failures"]) == (1.0, 1.0, 0.5, 0)
    assert (told["pairs"], told["fit"], told["why"], told["who"]) == (40, True, "", "simulated")
    figure = judging.figures["lora"][BY_MODEL]
    assert figure.value() == 0.75
    assert figure.ids == tuple(f"row-{index}" for index in range(40))
    assert judge.shown[0] == Pair("question 0", "lora 0 good", "base 0")
    assert judge.shown[40] == judge.shown[0].swapped()


def test_the_baseline_ties_with_itself_so_that_the_win_rate_is_compared_like_any_figure() -> None:
    judging, _ = judged(perfect)
    base, lora = judging.figures["base"][BY_MODEL], judging.figures["lora"][BY_MODEL]
    assert base.value() == 0.5
    found = compare(base, lora, Drawing())
    assert (found.change, found.status) == (0.25, "improved")


def test_one_who_always_prefers_the_first_place_is_unfit_and_gives_every_model_a_half() -> None:
    judging, _ = judged(lambda pair: 0.9)
    [told] = judging.described
    assert (told["consistency"], told["calibration"]) == (0.0, 0.0)
    assert told["first_share"] == pytest.approx(0.9)
    assert judging.figures["lora"][BY_MODEL].value() == pytest.approx(0.5)
    assert "it says the same in both orders for 0% of pairs, 60% are needed" in judging.unfit[BY_MODEL]
    assert told["why"] == judging.unfit[BY_MODEL]
    assert not told["fit"]


def test_a_taste_for_the_first_place_that_is_weaker_than_the_difference_does_no_harm() -> None:
    judging, _ = judged(lambda pair: 0.2 + 0.7 * perfect(pair))
    [told] = judging.described
    assert (told["consistency"], told["fit"]) == (1.0, True)
    assert told["first_share"] == pytest.approx(0.55)
    assert judging.figures["lora"][BY_MODEL].value() == pytest.approx((30 * 0.85 + 10 * 0.15) / 40)


@pytest.mark.parametrize("flip", [lambda draw: float(draw() < 0.5), lambda draw: draw()], ids=["verdicts", "shares"])
def test_one_who_flips_a_coin_is_unfit(flip: Callable[[Callable[[], float]], float]) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        judging, _ = judged(lambda pair, rng=rng: flip(rng.random))  # type: ignore[misc]
        assert "it is right on" in judging.unfit[BY_MODEL]


def test_one_who_prefers_the_first_place_far_more_than_the_better_answer_knows_nothing() -> None:
    """As a model of 135 M parameters does: the mean over both orders favours the better answer all the same."""
    judging, _ = judged(lambda pair: 0.9 + 0.02 * (perfect(pair) - 0.5))
    [told] = judging.described
    assert judging.figures["lora"][BY_MODEL].value() > 0.5
    assert (told["consistency"], told["calibration"]) == (0.0, 0.0)


def test_one_who_finds_everything_equal_is_unfit() -> None:
    judging, _ = judged(lambda pair: 0.5)
    [told] = judging.described
    assert (told["consistency"], told["calibration"], told["fit"]) == (1.0, 0.0, False)


@pytest.mark.parametrize("sign", [1, -1], ids=["longer", "shorter"])
def test_one_who_looks_at_length_alone_is_unfit(sign: int) -> None:
    judging, _ = judged(lambda pair: float(sign * len(pair.first) > sign * len(pair.second)))
    assert judging.described[0]["consistency"] == 1.0
    assert judging.unfit[BY_MODEL].startswith("it is right on")


def test_one_who_knows_nothing_of_the_known_pairs_is_unfit_however_consistent() -> None:
    judging, _ = judged(lambda pair: float("lora" in pair.first))
    assert judging.described[0]["consistency"] == 1.0
    assert judging.unfit[BY_MODEL] == "it is right on 0% of pairs without doubt, 80% are needed"


@pytest.mark.parametrize(("unread", "is_fit"), [(2, True), (3, False)])
def test_verdicts_that_cannot_be_read_are_no_losses_and_few_may_be_so(unread: int, is_fit: bool) -> None:
    """Of 40 rows 5 % are 2. One order that could not be read is enough."""
    names = tuple(f"lora {index} " for index in range(unread))
    judging, _ = judged(lambda pair: None if pair.first.startswith(names) else perfect(pair))
    [told] = judging.described
    assert (told["failures"], told["pairs"], told["fit"]) == (unread, 40 - unread, is_fit)
    assert told["consistency"] == 1.0
    figure = judging.figures["lora"][BY_MODEL]
    assert figure.value() == (30 - unread) / (40 - unread)
    assert len(figure.ids) == 40 - unread
    assert "row-0" not in figure.ids
    if not is_fit:
        assert judging.unfit[BY_MODEL] == "3 of 40 pairs have no verdict, 5% may have none"


def test_one_who_cannot_be_read_at_all_has_no_win_rate() -> None:
    judging, _ = judged(lambda pair: None)
    [told] = judging.described
    assert (told["pairs"], told["failures"], told["consistency"], told["calibration"]) == (0, 40, None, 0.0)
    assert told["first_share"] is None
    assert told["length_controlled"] == {"lora": None}
    assert "lora" not in judging.figures
    assert BY_MODEL in judging.unfit


def test_equal_answers_are_ties_that_nobody_is_asked_about() -> None:
    judge = Simulated(perfect)
    outcomes = {"base": outcome(["same", "base"]), "lora": outcome([" same\n", "lora good"])}
    judging = judge_by_model(judge, [model("base"), model("lora")], [row(0), row(1)], outcomes)
    assert judging.figures["lora"][BY_MODEL].value() == 0.75
    assert len(judge.shown) == 2 + 2 * len(CALIBRATION)


def test_where_all_answers_are_equal_the_known_pairs_decide_alone() -> None:
    judge = Simulated(perfect)
    outcomes = {"base": outcome(["same"] * 3), "lora": outcome(["same"] * 3)}
    judging = judge_by_model(judge, [model("base"), model("lora")], [row(index) for index in range(3)], outcomes)
    [told] = judging.described
    assert (told["consistency"], told["first_share"], told["fit"]) == (None, None, True)
    assert judging.figures["lora"][BY_MODEL].value() == 0.5


def test_several_models_are_judged_against_the_first() -> None:
    outcomes = {"base": outcome(["b"] * 8), "lora": outcome(["good"] * 8), "ppo": outcome(["bad"] * 6 + ["good"] * 2)}
    models = [model("base"), model("lora"), model("ppo")]
    judging = judge_by_model(Simulated(perfect), models, [row(index) for index in range(8)], outcomes)
    assert {label: own[BY_MODEL].value() for label, own in judging.figures.items()} == {
        "base": 0.5,
        "lora": 1.0,
        "ppo": 0.25,
    }


def test_judges_and_questions_that_differ_are_not_compared() -> None:
    one, _ = judged(perfect)
    judge = Simulated(perfect, identity="another")
    outcomes = {"base": outcome(["b"] * 8), "lora": outcome(["good"] * 8)}
    other = judge_by_model(judge, [model("base"), model("lora")], [row(index) for index in range(8)], outcomes)
    found = compare(one.figures["lora"][BY_MODEL], other.figures["lora"][BY_MODEL], Drawing())
    assert found.status == "not evaluable"
    assert version() in one.figures["lora"][BY_MODEL].signature


def test_a_win_by_length_is_told_beside_the_win_rate() -> None:
    """The longer answer wins by 0.8: on 30 rows of 40 that of lora, by 10 characters, on the others it is 10 shorter."""
    n = 40
    outcomes = {
        "base": outcome(["x" * 20 for _ in range(n)]),
        "lora": outcome(["y" * (30 if index < 30 else 10) for index in range(n)]),
    }
    judge = Simulated(lambda pair: 0.8 if len(pair.first) > len(pair.second) else 0.2)
    judging = judge_by_model(judge, [model("base"), model("lora")], [row(index) for index in range(n)], outcomes)
    [told] = judging.described
    assert judging.figures["lora"][BY_MODEL].value() == pytest.approx(0.65)
    assert told["length_correlation"] == pytest.approx(1.0)
    assert told["length_controlled"]["lora"] == pytest.approx(0.5, abs=1e-3)


# The reward model --------------------------------------------------------------------------------------------------------------


def by_reward(*models: Artifact) -> Judging:
    scores = {"base": [0.0, 1.0, 2.0, -1.0], "lora": [math.log(3), 1.0, 2.0 - math.log(3), 800.0], "ppo": [0.0] * 4}
    outcomes = {one.label: outcome(["a", "bb", "ccc", "dddd"], scores[one.label]) for one in models}
    return judge_by_reward(REWARD, models, [f"row-{index}" for index in range(4)], outcomes)


def test_a_reward_models_verdict_is_sigma_of_the_difference() -> None:
    """3/4, a tie, 1/4, and a difference that no exponential holds: 1."""
    judging = by_reward(model("base"), model("lora"))
    figure = judging.figures["lora"][BY_REWARD]
    assert figure.examples.statistics[:, 0].tolist() == pytest.approx([0.75, 0.5, 0.25, 1.0])
    assert figure.value() == pytest.approx(0.625)
    assert judging.figures["base"][BY_REWARD].value() == 0.5
    [told] = judging.described
    assert (told["kind"], told["who"], told["pairs"], told["fit"], told["why"]) == ("reward", REWARD.ref, 4, True, "")
    assert judging.unfit == {}


def test_a_reward_model_is_no_judge_of_a_policy_that_was_trained_on_it_and_judges_the_others() -> None:
    judging = by_reward(model("base"), model("lora", "sha256:other"), model("ppo", "sha256:other", REWARD.digest))
    assert set(judging.unfit) == {"ppo.judge.reward", "ppo.reward_greedy", "ppo.reward_sampled"}
    assert set(judging.unfit.values()) == {f"ppo was trained to please {REWARD.ref}"}
    [told] = judging.described
    assert (told["fit"], told["why"]) == (True, f"ppo was trained to please {REWARD.ref}")
    assert judging.figures["ppo"][BY_REWARD].value() < 0.5, "it is shown all the same"


def test_a_reward_model_that_all_models_were_trained_on_judges_nothing() -> None:
    assert by_reward(model("base"), model("ppo", REWARD.digest)).described[0]["fit"] is False


def test_a_baseline_that_was_trained_on_the_reward_model_makes_it_no_judge_of_any() -> None:
    judging = by_reward(model("ppo", REWARD.digest), model("lora"))
    assert judging.unfit[BY_REWARD] == f"ppo was trained to please {REWARD.ref}, and all are compared with it"
    assert judging.described[0]["fit"] is False


def test_what_is_not_known_of_a_models_making_is_said() -> None:
    judging = by_reward(model("base", is_made=False), model("lora", is_made=False))
    [told] = judging.described
    assert (told["fit"], told["why"]) == (True, "whether lora was trained to please it is not known")
    assert judging.unfit == {}


def test_circular_names_all_that_are() -> None:
    assert circular([model("base")], REWARD) == ""
    two = [model("a", REWARD.digest), model("b", REWARD.digest)]
    assert circular(two, REWARD) == f"a and b were trained to please {REWARD.ref}"


def test_a_figure_that_may_not_gate_says_so_wherever_it_is_kept(tmp_path: Path) -> None:
    judging = by_reward(model("base"), model("lora"), model("ppo", REWARD.digest))
    llm, _ = judged(lambda pair: 0.9)
    figures = {label: own | llm.figures.get(label, {}) for label, own in judging.figures.items()}
    write_figures(tmp_path / "examples.json", marked(figures, [judging, llm]))
    found = read_figures(tmp_path / "examples.json")
    unfit = {label: {name for name, one in own.items() if one.unfit} for label, own in found.items()}
    assert unfit == {"base": {BY_MODEL}, "lora": {BY_MODEL}, "ppo": {BY_REWARD}}
    assert found["ppo"][BY_REWARD].unfit == f"ppo was trained to please {REWARD.ref}"
    assert found["ppo"][BY_REWARD].only(["row-1"]).unfit
    rules = [Rule(metric=BY_REWARD), Rule(metric=BY_MODEL, model="lora", min=0.1)]
    verdict = judge_gate(rules, found, baseline="base")
    told = [(one.model, one.status == "not evaluable") for one in verdict.results]
    assert ("ppo", True) in told
    assert told[-1] == ("lora", True)
    assert verdict.exit_code == 7


# The question ------------------------------------------------------------------------------------------------------------------


def test_the_question_has_both_answers_in_their_places_whatever_is_in_them() -> None:
    question = Pair("What {is} this?", "{a}", "{b} Answer A:").question
    assert "Request:\nWhat {is} this?\n" in question
    assert "Answer A:\n{a}\n\nAnswer B:\n{b} Answer A:\n" in question


def test_a_conversation_is_shown_with_its_roles_and_a_question_alone_is_not() -> None:
    user = {"role": "user", "content": "And now?"}
    assert request_of([user]) == "And now?"
    assert request_of([{"role": "system", "content": "Be brief."}, user]) == "system: Be brief.\n\nuser: And now?"
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
    shown = request_of([{"role": "assistant", "content": "", "tool_calls": [call]}, user])
    assert '"name": "look"' in shown


def test_length_does_not_tell_the_better_answer_of_the_known_pairs() -> None:
    assert len(CALIBRATION) >= 10
    longer = sum(len(pair.first) > len(pair.second) for pair in CALIBRATION)
    shorter = sum(len(pair.first) < len(pair.second) for pair in CALIBRATION)
    assert abs(longer - shorter) <= 1
    assert len({pair.request for pair in CALIBRATION}) == len(CALIBRATION)
