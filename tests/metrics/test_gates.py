"""Every decision of a gate on figures made by hand; p-values against scipy, Holm's correction by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ftcli.core.errors import GateFailed, GateNotEvaluable
from ftcli.metrics.comparison import Drawing, compare
from ftcli.metrics.figures import Figure, Figures, read_figures, write_figures
from ftcli.metrics.gates import BASELINE_FILE, judge_gate
from ftcli.metrics.names import METRICS, Metric
from ftcli.metrics.rules import Rule
from ftcli.metrics.statistics import Examples, mean_of
from ftcli.metrics.verdicts import Result, Verdict

FEW = Drawing(resamples=500)
SPREAD = np.tile([0.3, 0.4, 0.5, 0.6], 5)  # 20 rows, mean 0.45


def figure(name: str, values: Sequence[float] | np.ndarray, metric: Metric | None = None, **changes: Any) -> Figure:
    rows = [float(value) for value in values]
    found = Figure(name, metric or METRICS[name], mean_of(rows), tuple(f"r{row}" for row in range(len(rows))), "v1")
    return replace(found, **changes)


def perplexity(nll: Sequence[float] | np.ndarray) -> Figure:
    """Of rows with ten tokens each and ``nll`` a token."""
    statistics = np.stack([10 * np.asarray(nll, dtype=np.float64), np.full(len(nll), 10.0)], axis=1)
    ids = tuple(f"r{row}" for row in range(len(nll)))
    return Figure("perplexity", METRICS["perplexity"], Examples(statistics), ids, "v1")


def models(**figures: Figure | Sequence[Figure]) -> dict[str, Figures]:
    return {
        label: {one.name: one for one in ([found] if isinstance(found, Figure) else found)}
        for label, found in figures.items()
    }


def judge(figures: dict[str, Figures], *rules: dict[str, Any], **options: Any) -> Verdict:
    given = {"baseline": "base", "drawing": FEW, **options}
    return judge_gate([Rule(**rule) for rule in rules], figures, **given)


def only(figures: dict[str, Figures], rule: dict[str, Any], **options: Any) -> Result:
    (found,) = judge(figures, rule, **options).results
    return found


def statuses(verdict: Verdict) -> list[str]:
    return [one.status for one in verdict.results]


# ---- changes: worse by 0.02 on every row, so that the interval is that number


LOWER = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD - 0.02))
CODES = {"passed": 0, "failed": 6, "inconclusive": 0, "not evaluable": 7}


@pytest.mark.parametrize(
    ("mode", "limit", "status"),
    [
        ("proven", {}, "failed"),
        ("proven", {"max_drop": 0.01}, "failed"),
        ("proven", {"max_drop": 0.02}, "passed"),
        ("proven", {"max_drop": 0.03}, "passed"),
        ("proven", {"max_ratio": 1.04}, "failed"),  # 0.45 / 0.43 = 1.0465
        ("proven", {"max_ratio": 1.05}, "passed"),
        ("non-inferior", {}, "failed"),  # ROUGE-L's own margin is 0.01
        ("non-inferior", {"max_drop": 0.03}, "passed"),
        ("non-inferior", {"max_drop": 0.01}, "failed"),
        ("non-inferior", {"max_ratio": 1.05}, "passed"),
        ("point", {}, "failed"),
        ("point", {"max_drop": 0.02}, "passed"),
        ("point", {"max_drop": 0.019}, "failed"),
        ("point", {"max_ratio": 1.04}, "failed"),
        ("point", {"max_ratio": 1.0455}, "failed"),  # 1 - 0.43 / 0.45 is 0.044, and 1 - 1 / 1.0455 less
        ("point", {"max_ratio": 1.05}, "passed"),
    ],
)
def test_a_sure_loss_breaks_a_rule_that_allows_less(mode: str, limit: dict[str, float], status: str) -> None:
    verdict = judge(LOWER, {"metric": "rougeL", **limit}, mode=mode)
    (found,) = verdict.results
    assert (found.status, verdict.exit_code) == (status, CODES[status])
    assert found.change == pytest.approx(-0.02)
    assert (found.value, found.baseline) == (pytest.approx(0.43), pytest.approx(0.45))
    assert only(LOWER, {"metric": "rougeL", "mode": mode, **limit}).status == status, "a rule may name its mode"


@pytest.mark.parametrize("mode", ["proven", "non-inferior", "point"])
@pytest.mark.parametrize("rule", [{}, {"max_drop": 0.0}, {"max_drop": 0.01}, {"max_ratio": 1.01}])
def test_what_got_better_passes_and_so_does_the_same_model(mode: str, rule: dict[str, float]) -> None:
    better = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + 0.02))
    same = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD))
    for figures in (better, same):
        verdict = judge(figures, {"metric": "rougeL", **rule}, mode=mode, strict=True)
        assert (statuses(verdict), verdict.exit_code) == (["passed"], 0)


def test_swapping_the_models_turns_the_verdict() -> None:
    assert judge(LOWER, {"metric": "rougeL"}, baseline="base").exit_code == 6
    turned = judge(LOWER, {"metric": "rougeL"}, baseline="lora")
    assert turned.exit_code == 0
    assert turned.results[0].model == "base"
    assert turned.results[0].change == pytest.approx(0.02)


def test_chance_is_no_loss_unless_a_raw_threshold_is_asked_for() -> None:
    noise = np.tile([-0.25, 0.23], 10)  # mean -0.01
    figures = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + noise))
    rule = {"metric": "rougeL", "max_drop": 0.005}
    proven = judge(figures, rule)
    assert (statuses(proven), proven.exit_code) == (["inconclusive"], 0)
    assert "neither proven worse nor shown to be within max_drop 0.005" in proven.results[0].message
    assert "detectable 0." in proven.results[0].message
    assert judge(figures, rule, mode="non-inferior").exit_code == 6
    assert judge(figures, rule, mode="point").exit_code == 6
    strict = judge(figures, rule, strict=True)
    assert (statuses(strict), strict.exit_code) == (["not evaluable"], 7)


def test_a_proven_loss_that_may_be_within_the_limit_is_inconclusive() -> None:
    change = np.tile([-0.03, -0.01], 10)  # -0.02 on average, an interval of about +-0.004
    figures = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + change))
    assert only(figures, {"metric": "rougeL"}).status == "failed"
    assert only(figures, {"metric": "rougeL", "max_drop": 0.021}).status == "inconclusive"
    assert only(figures, {"metric": "rougeL", "max_drop": 0.03}).status == "passed"


def test_a_lower_figure_is_better_where_the_metric_says_so() -> None:
    metric = Metric("General nll", "general", False, 3, "", margin=0.02)
    before, after = figure("general.nll", SPREAD, metric), figure("general.nll", SPREAD + 0.05, metric)
    up, down = models(base=before, lora=after), models(base=after, lora=before)
    for mode in ("proven", "non-inferior", "point"):
        assert only(up, {"metric": "general.nll", "max_drop": 0.03}, mode=mode).status == "failed"
        assert only(up, {"metric": "general.nll", "max_drop": 0.06}, mode=mode).status == "passed"
        assert (
            only(up, {"metric": "general.nll", "max_ratio": 1.10}, mode=mode).status == "failed"
        )  # 0.5 / 0.45 = 1.111
        assert only(up, {"metric": "general.nll", "max_ratio": 1.12}, mode=mode).status == "passed"
        assert only(down, {"metric": "general.nll"}, mode=mode).status == "passed"


@pytest.mark.parametrize("mode", ["proven", "non-inferior", "point"])
def test_perplexity_is_judged_by_its_factor(mode: str) -> None:
    """All rows have nll log 10 and log 10.6 a token, so the perplexities are 10 and 10.6."""
    figures = models(base=perplexity([math.log(10)] * 20), lora=perplexity([math.log(10.6)] * 20))
    for limit, status in [
        ({"max_ratio": 1.05}, "failed"),
        ({"max_ratio": 1.07}, "passed"),
        ({"max_drop": 0.5}, "failed"),
        ({"max_drop": 0.7}, "passed"),
    ]:
        found = only(figures, {"metric": "perplexity", **limit}, mode=mode)
        assert found.status == status
        assert found.change == pytest.approx(1.06)
        assert (found.baseline, found.value) == (pytest.approx(10), pytest.approx(10.6))
    assert found.margin == pytest.approx(10.7 / 10), "a drop of a ratio metric is turned into a factor"


def test_a_drop_of_a_ratio_metric_counts_downwards_where_more_is_better() -> None:
    """From 10 to 9.4: 0.6 lost."""
    metric = Metric("Score", "custom", True, 2, "", is_ratio=True)
    before, after = (figure("custom.x", np.full(20, math.log(value)), metric) for value in (10, 9.4))
    for limit, status in [(0.59, "failed"), (0.61, "passed"), (11.0, "passed")]:
        found = only(models(base=before, lora=after), {"metric": "custom.x", "max_drop": limit}, mode="point")
        assert found.status == status
    json.dumps(found.to_json(), allow_nan=False)


def test_a_limit_that_is_met_to_the_last_bit_is_met() -> None:
    figures = models(base=figure("rougeL", [0.31, 0.31]), lora=figure("rougeL", [0.30, 0.30]))
    found = only(figures, {"metric": "rougeL", "max_drop": 0.01}, mode="point")
    assert found.change is not None
    assert -found.change > 0.01
    assert found.status == "passed"


def test_a_loss_is_not_proven_while_its_interval_has_no_change_in_it() -> None:
    change = np.tile([-0.05, 0.03], 10)  # p of about 0.27
    figures = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + change))
    found = only(figures, {"metric": "rougeL"}, alpha=0.5)
    assert found.p_holm is not None
    assert found.ci is not None
    assert (found.p_holm < 0.5, found.ci[1] > 0, found.status) == (True, True, "inconclusive")


def test_non_inferiority_needs_holms_p_beside_the_interval() -> None:
    """Changes of +-0.02 on 20 rows: the margin at which the one-sided t test has p 0.02, so 0.04 as it is counted here."""
    change = np.tile([-0.02, 0.02], 10)
    margin = float(stats.t.isf(0.02, 19) * 0.02 / math.sqrt(19))
    after = figure("rougeL", SPREAD + change)
    rule = {"metric": "rougeL", "max_drop": margin, "mode": "non-inferior"}
    alone = only(models(base=figure("rougeL", SPREAD), lora=after), rule)
    assert (alone.status, alone.p_holm) == ("passed", pytest.approx(0.04))
    assert alone.ci is not None
    assert alone.ci[0] > -margin
    two = judge(models(base=figure("rougeL", SPREAD), lora=after, ppo=after), rule)
    assert [one.p_holm for one in two.results] == [pytest.approx(0.08)] * 2
    assert statuses(two) == ["failed", "failed"]


def test_the_p_of_non_inferiority_is_that_of_the_shifted_t_test() -> None:
    rng = np.random.default_rng(3)
    change = rng.normal(-0.005, 0.02, 20)
    figures = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + change))
    found = only(figures, {"metric": "rougeL", "max_drop": 0.02}, mode="non-inferior")
    expected = stats.ttest_1samp(change, -0.02, alternative="greater").pvalue
    assert found.p == pytest.approx(2 * expected)
    assert found.status == "passed"
    assert "shown to be within max_drop 0.02" in found.message


@pytest.mark.parametrize(
    ("n", "limit", "p", "status"),
    [
        (100, 0.01, 2 * stats.norm.sf(0.01 * 102 / math.sqrt(2)), "failed"),  # 0.47
        (100, 0.05, 2 * stats.norm.sf(0.05 * 102 / math.sqrt(2)), "passed"),
        (400, 0.01, 2 * stats.norm.sf(0.01 * 402 / math.sqrt(2)), "passed"),  # 0.0045
    ],
)
def test_yes_and_no_that_agree_on_few_rows_prove_nothing(n: int, limit: float, p: float, status: str) -> None:
    """Their interval has no width, yet other rows may differ: one of 102 each way, by hand."""
    same = np.zeros(n)
    figures = models(base=figure("empty_rate", same), lora=figure("empty_rate", same))
    found = only(figures, {"metric": "empty_rate", "max_drop": limit}, mode="non-inferior")
    assert found.ci == (0.0, 0.0)
    assert found.p == pytest.approx(p)
    assert found.status == status
    told = "not shown to be within max_drop 0.01: the interval is, and p is not below 0.05"
    assert (told in found.message) == (status == "failed")


@pytest.mark.parametrize(("name", "status"), [("empty_rate", "failed"), ("exact_match", "passed")])
def test_non_inferiority_of_yes_and_no_knows_which_way_is_worse(name: str, status: str) -> None:
    more = models(base=figure(name, np.zeros(200)), lora=figure(name, (np.arange(200) < 20).astype(float)))
    assert only(more, {"metric": name, "max_drop": 0.05}, mode="non-inferior").status == status


# ---- words: the table beside a gate has a status of its own


def test_a_proven_loss_that_the_table_calls_equivalent_says_why() -> None:
    change = np.tile([-0.003, -0.001], 10)  # an interval inside ROUGE-L's margin of 0.01
    figures = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + change))
    assert compare(figures["base"]["rougeL"], figures["lora"]["rougeL"], FEW).status == "equivalent"
    found = only(figures, {"metric": "rougeL"})
    assert found.status == "failed"
    told = "proven worse: by no more than its margin 0.01, which the rule does not grant without a limit"
    assert told in found.message
    allowed = only(figures, {"metric": "rougeL", "max_drop": 0.01})
    assert (allowed.status, "within max_drop 0.01" in allowed.message) == ("passed", True)


def test_a_proven_loss_that_may_be_within_the_limit_is_not_called_unproven() -> None:
    change = np.tile([-0.03, -0.01], 10)
    figures = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + change))
    assert compare(figures["base"]["rougeL"], figures["lora"]["rougeL"], FEW).status == "regressed"
    found = only(figures, {"metric": "rougeL", "max_drop": 0.021})
    told = "proven worse, but neither beyond max_drop 0.021 nor shown to be within max_drop 0.021"
    assert told in found.message


def test_a_loss_that_holm_leaves_open_says_that_it_is_clear_by_itself() -> None:
    two = judge(six(lora=0.02, ppo=0.02), {"metric": "rougeL"})
    told = "worse by itself (p 0.031), and not proven beside the other checks, nor shown to be within its margin 0.01"
    assert told in two.results[0].message


def test_what_got_better_is_no_worse_with_or_without_a_margin() -> None:
    up = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + 0.02))
    assert ": no worse; p" in only(up, {"metric": "rougeL"}).message
    assert "shown to be no worse" in only(up, {"metric": "rougeL", "mode": "non-inferior"}).message
    noise = SPREAD + np.tile([-0.25, 0.23], 10)
    metric = Metric("X", "x", True, 2, "")
    unmarked = models(base=figure("custom.x", SPREAD, metric), lora=figure("custom.x", noise, metric))
    assert "neither proven worse nor shown to be no worse" in only(unmarked, {"metric": "custom.x"}).message
    assert only(LOWER, {"metric": "rougeL", "mode": "point"}).message.count(": worse; n 20") == 1


# ---- values


def shares(yes: int, n: int, name: str = "hit_max_rate") -> dict[str, Figures]:
    flags = np.arange(n) < yes
    return models(base=figure(name, np.zeros(n)), lora=figure(name, flags.astype(float)))


@pytest.mark.parametrize(
    ("yes", "mode", "status"),
    [
        (20, "proven", "failed"),
        (7, "proven", "inconclusive"),  # above 0.05, and its interval is not
        (0, "proven", "passed"),
        (5, "point", "passed"),
        (6, "point", "failed"),
        (0, "non-inferior", "passed"),
        (5, "non-inferior", "failed"),  # not above 0.05, and not shown to be
    ],
)
def test_a_share_is_held_to_its_limit_by_wilsons_interval_and_the_binomial_test(
    yes: int, mode: str, status: str
) -> None:
    found = only(shares(yes, 100), {"metric": "hit_max_rate", "max": 0.05}, mode=mode)
    assert found.status == status
    assert (found.value, found.baseline, found.change, found.against) == (yes / 100, None, None, "")
    assert found.ci == pytest.approx(tuple(stats.binomtest(yes, 100).proportion_ci(method="wilson")))
    if mode == "proven":
        assert found.p == pytest.approx(min(1.0, 2 * stats.binom.sf(yes - 1, 100, 0.05)))
    if mode == "non-inferior":
        assert found.p == pytest.approx(min(1.0, 2 * stats.binom.cdf(yes, 100, 0.05)))


@pytest.mark.parametrize("mode", ["proven", "non-inferior", "point"])
def test_a_mean_is_held_to_its_limit_by_its_own_interval(mode: str) -> None:
    assert only(LOWER, {"metric": "rougeL", "min": 0.6}, mode=mode).status == "failed"
    assert only(LOWER, {"metric": "rougeL", "min": 0.2}, mode=mode).status == "passed"
    assert only(LOWER, {"metric": "rougeL", "max": 0.2}, mode=mode).status == "failed"
    assert only(LOWER, {"metric": "rougeL", "max": 0.6}, mode=mode).status == "passed"


def test_the_p_of_a_mean_is_that_of_the_t_test() -> None:
    found = only(LOWER, {"metric": "rougeL", "min": 0.5})
    expected = stats.ttest_1samp(SPREAD - 0.02, 0.5, alternative="less").pvalue
    assert found.p == pytest.approx(2 * expected)
    assert found.status == "failed"
    assert found.n == 20


def test_two_limits_of_one_value_are_two_tests() -> None:
    one = judge(shares(20, 100), {"metric": "hit_max_rate", "max": 0.1})
    two = judge(shares(20, 100), {"metric": "hit_max_rate", "max": 0.1}, {"metric": "hit_max_rate", "max": 0.11})
    alone, together = one.results[0].p_holm, two.results[0].p_holm
    assert alone is not None
    assert together == pytest.approx(2 * alone)


def test_a_mean_near_its_limit_is_inconclusive() -> None:
    assert only(LOWER, {"metric": "rougeL", "min": 0.44}).status == "inconclusive"
    assert only(LOWER, {"metric": "rougeL", "min": 0.44}, mode="non-inferior").status == "failed"


def test_the_limit_of_a_ratio_metric_is_its_value_and_not_a_logarithm() -> None:
    rng = np.random.default_rng(0)
    figures = models(base=perplexity(rng.normal(2, 0.1, 30)))  # about 7.4
    assert only(figures, {"metric": "perplexity", "max": 7.0}).status == "failed"
    assert only(figures, {"metric": "perplexity", "max": 8.0}).status == "passed"
    found = only(figures, {"metric": "perplexity", "max": 8.0})
    assert found.ci is not None
    assert found.ci[0] < 7.4 < found.ci[1]
    assert only(figures, {"metric": "perplexity", "max": 0.0}).status == "not evaluable"


def test_a_model_alone_is_held_to_values_and_to_nothing_else() -> None:
    alone = models(lora=figure("rougeL", SPREAD))
    found = only(alone, {"metric": "rougeL", "min": 0.2}, baseline="lora")
    assert (found.model, found.status) == ("lora", "passed")
    verdict = judge(alone, {"metric": "rougeL"}, {"expr": "rougeL.value < 0.6"}, baseline="lora")
    assert statuses(verdict) == ["not evaluable", "failed"]
    assert "there is no other model to compare lora with" in verdict.results[0].message


# ---- which models


THREE = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + 0.05), ppo=figure("rougeL", SPREAD + 0.01))


def test_every_model_but_the_baseline_is_judged_unless_the_rule_names_one() -> None:
    def who(**rule: Any) -> list[tuple[str, str, str]]:
        found = judge(THREE, {"metric": "rougeL", **rule}).results
        return [(one.model, one.against, one.status) for one in found]

    assert who() == [("lora", "base", "passed"), ("ppo", "base", "passed")]
    assert who(model="ppo") == [("ppo", "base", "passed")]
    assert who(model="ppo", against="lora") == [("ppo", "lora", "failed")]
    assert who(against="lora") == [("ppo", "lora", "failed")]
    assert who(min=0.1) == [("lora", "", "passed"), ("ppo", "", "passed")]
    assert who(model="base", min=0.1) == [("base", "", "passed")]


def test_a_metric_that_is_unfit_for_one_model_decides_about_the_others() -> None:
    verdict = judge(THREE, {"metric": "rougeL"}, unfit={"ppo.rougeL": "it was trained on it"})
    assert [(one.model, one.status) for one in verdict.results] == [("lora", "passed"), ("ppo", "not evaluable")]
    assert verdict.exit_code == 7
    assert judge(THREE, {"metric": "rougeL", "model": "lora"}, unfit={"ppo.rougeL": "no"}).exit_code == 0
    assert (
        judge(THREE, {"metric": "rougeL", "model": "lora", "against": "ppo"}, unfit={"ppo.rougeL": "no"}).exit_code == 7
    )


def test_figures_of_a_file_are_a_baseline_and_never_judged(tmp_path: Path) -> None:
    write_figures(tmp_path / "examples.json", {"lora": THREE["lora"]})
    figures = {**models(ppo=THREE["ppo"]["rougeL"]), BASELINE_FILE: read_figures(tmp_path / "examples.json")["lora"]}
    found = only(figures, {"metric": "rougeL"}, baseline=BASELINE_FILE)
    assert (found.model, found.against, found.status) == ("ppo", BASELINE_FILE, "failed")
    assert found.change == pytest.approx(-0.04)
    with_base = {**THREE, BASELINE_FILE: THREE["lora"]}
    judged = judge(with_base, {"metric": "rougeL"}, {"metric": "rougeL", "against": BASELINE_FILE, "model": "ppo"})
    assert [(one.model, one.status) for one in judged.results] == [
        ("lora", "passed"),
        ("ppo", "passed"),
        ("ppo", "failed"),
    ]


# ---- Holm's family: six rows that all lose have p = 2 / 2**6 = 0.03125


def six(**losing: float) -> dict[str, Figures]:
    base = figure("rougeL", SPREAD[:6])
    return models(base=base, **{label: figure("rougeL", SPREAD[:6] - loss) for label, loss in losing.items()})


def test_a_test_counts_once_and_each_further_one_costs_certainty() -> None:
    alone = judge(six(lora=0.02), {"metric": "rougeL"}, {"metric": "rougeL", "max_drop": 0.01})
    assert [one.p_holm for one in alone.results] == [0.03125, 0.03125]
    assert alone.exit_code == 6
    two = judge(six(lora=0.02, ppo=0.02), {"metric": "rougeL"})
    assert [one.p_holm for one in two.results] == [0.0625, 0.0625]
    assert (statuses(two), two.exit_code) == (["inconclusive", "inconclusive"], 0)


def test_soft_rules_and_raw_thresholds_take_nothing_from_the_hard_rules() -> None:
    verdict = judge(
        six(lora=0.02, ppo=0.02),
        {"metric": "rougeL", "model": "lora"},
        {"metric": "rougeL", "model": "ppo", "severity": "soft"},
        {"metric": "rougeL", "model": "ppo", "mode": "point"},
        {"expr": "ppo.rougeL.delta < -1"},
    )
    assert [one.p_holm for one in verdict.results] == [0.03125, 0.03125, None, None]
    assert statuses(verdict) == ["failed", "failed", "failed", "passed"]


def test_more_tests_than_the_resamples_can_prove_anything_in_do_not_pass() -> None:
    """A Monte Carlo p of 99 draws is 1/100 at least, and 5 such tests at 5 % can never have Holm's p below it."""
    many = models(base=figure("rougeL", SPREAD), **{f"m{n}": figure("rougeL", SPREAD - 0.02) for n in range(5)})
    few = judge(many, {"metric": "rougeL"}, drawing=Drawing(resamples=99))
    assert (few.exit_code, statuses(few)) == (7, ["not evaluable"] * 5)
    told = "99 resamples are too few to prove anything in 5 tests at alpha 0.05: 100 are needed"
    assert few.results[0].message == told
    enough = judge(many, {"metric": "rougeL"}, drawing=Drawing(resamples=100))
    assert statuses(enough) == ["failed"] * 5
    assert judge(many, {"metric": "rougeL", "mode": "point"}, drawing=Drawing(resamples=99)).exit_code == 6


def test_a_condition_that_asks_for_holms_p_belongs_to_the_family() -> None:
    verdict = judge(
        six(lora=0.02, ppo=0.02), {"metric": "rougeL", "model": "lora"}, {"expr": "ppo.rougeL.p_holm < 0.05"}
    )
    assert [one.p_holm for one in verdict.results] == [0.0625, 0.0625]
    assert statuses(verdict) == ["inconclusive", "passed"]
    assert judge(six(lora=0.02), {"expr": "rougeL.p_holm < 0.05"}).exit_code == 6


def test_without_any_real_change_no_more_gates_fail_than_alpha_allows() -> None:
    """300 gates of four models that differ by chance alone; more than 27 failing has a chance of 1 in 1000 at 5 %."""
    rng = np.random.default_rng(1)
    failed = 0
    for _ in range(300):
        base = rng.uniform(0, 1, 24)
        drawn = {label: figure("rougeL", base + rng.normal(0, 0.2, 24)) for label in ("a", "b", "c", "d")}
        figures = models(base=figure("rougeL", base), **drawn)
        failed += judge(figures, {"metric": "rougeL"}, drawing=Drawing(resamples=400)).exit_code == 6
    assert failed <= stats.binom.isf(0.001, 300, 0.05)


# ---- conditions


@pytest.mark.parametrize(
    ("expr", "status"),
    [
        ("rougeL.delta < -0.01", "failed"),
        ("rougeL.delta < -0.03", "passed"),
        ("-0.021 < rougeL.delta < -0.019", "failed"),
        ("rougeL.value < 0.44 and rougeL.baseline > 0.44", "failed"),
        ("rougeL.ratio < 0.95", "passed"),
        ("rougeL.ratio < 0.96", "failed"),  # 0.43 / 0.45 = 0.956
        ("rougeL.ci_high < 0", "failed"),
        ("rougeL.ci_low < -0.021", "passed"),
        ("rougeL.n < 20", "passed"),
        ("rougeL.p < 0.01 and rougeL.p_holm < 0.01", "failed"),
        ("rougeL.mde > 1", "passed"),
        ("lora.rougeL.delta < base.rougeL.value - 1", "passed"),
    ],
)
def test_a_condition_is_broken_when_it_is_true(expr: str, status: str) -> None:
    verdict = judge(LOWER, {"expr": expr})
    assert (statuses(verdict), verdict.exit_code) == ([status], CODES[status])


def test_a_condition_is_judged_for_each_model_or_once_where_it_names_them() -> None:
    verdict = judge(THREE, {"expr": "rougeL.delta < 0.02"}, {"expr": "ppo.rougeL.delta < lora.rougeL.delta"})
    assert [(one.model, one.status) for one in verdict.results] == [
        ("lora", "passed"),
        ("ppo", "failed"),
        ("ppo+lora", "failed"),
    ]
    assert "rougeL.delta = 0.01" in verdict.results[1].message
    assert "n 20, detectable" in verdict.results[1].message


def test_a_condition_sees_both_ends_of_the_interval() -> None:
    figures = models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD + np.tile([-0.03, -0.01], 10)))
    found = only(figures, {"expr": "rougeL.ci_low < -0.021 and rougeL.ci_high > -0.019"})
    assert found.status == "failed"
    assert found.ci is not None
    assert found.ci[0] < found.ci[1]


def test_the_interval_of_a_ratio_metric_is_that_of_its_factor_in_conditions() -> None:
    figures = models(base=perplexity([math.log(10)] * 20), lora=perplexity([math.log(10.6)] * 20))
    assert only(figures, {"expr": "1.05 < perplexity.ci_low and perplexity.ci_high < 1.07"}).status == "failed"
    assert only(figures, {"expr": "0.59 < perplexity.delta < 0.61"}).status == "failed"


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        ("rouge1.delta < 0", "rouge1.delta: no metric rouge1 was measured; did you mean rougeL?"),
        ("dpo.rougeL.delta < 0", "dpo.rougeL.delta: no model dpo was measured; measured: base, lora"),
        ("base.rougeL.delta < 0", "base would be compared with itself"),
        ("rougeL.delta / (rougeL.n - 20) < 0", "division by zero"),
        ("rougeL.delta < 0 or rougeL.value / 0 < 1", "division by zero"),
    ],
)
def test_a_condition_without_an_answer_does_not_pass(expr: str, message: str) -> None:
    verdict = judge(LOWER, {"expr": expr})
    assert (statuses(verdict), verdict.exit_code) == (["not evaluable"], 7)
    assert message in verdict.results[0].message


def test_a_ratio_to_nothing_and_an_effect_that_cannot_be_seen_have_no_value() -> None:
    zeros = models(base=figure("rougeL", np.zeros(20)), lora=figure("rougeL", np.ones(20)))
    assert "rougeL.ratio has no value" in only(zeros, {"expr": "rougeL.ratio < 0.9"}).message
    few = models(base=figure("rougeL", SPREAD[:3]), lora=figure("rougeL", SPREAD[:3]))
    assert "rougeL.mde has no value" in only(few, {"expr": "rougeL.mde > 0.1"}).message


# ---- closed where it cannot be judged


def broken(**changes: Any) -> dict[str, Figures]:
    return models(base=figure("rougeL", SPREAD), lora=figure("rougeL", SPREAD, **changes))


def custom(baseline: np.ndarray, higher_is_better: bool | None) -> dict[str, Figures]:
    """A metric without a margin of its own."""
    metric = Metric("X", "x", higher_is_better, 2, "")
    return models(base=figure("custom.x", baseline, metric), lora=figure("custom.x", SPREAD, metric))


NAN = np.where(np.arange(20) == 3, math.nan, SPREAD)
UNJUDGED: list[tuple[dict[str, Figures], dict[str, Any], dict[str, Any], str]] = [
    (LOWER, {"metric": "general.nll"}, {}, "no metric general.nll was measured; measured: rougeL"),
    (LOWER, {"metric": "rouge1"}, {}, "no metric rouge1 was measured; did you mean rougeL?"),
    (LOWER, {"metric": "rougeL", "model": "lara"}, {}, "no model lara was measured; did you mean lora?"),
    (LOWER, {"metric": "rougeL", "against": "zzz"}, {}, "no model zzz was measured; measured: base, lora"),
    (LOWER, {"metric": "rougeL", "model": "base"}, {}, "base would be compared with itself"),
    (LOWER, {"metric": "rougeL"}, {"baseline": "zzz"}, "there is no other model to compare"),
    (LOWER, {"metric": "rougeL", "min_n": 21}, {}, "rougeL: 20 rows that both models have, 21 are needed"),
    (LOWER, {"metric": "rougeL", "min": 0.1, "min_n": 21}, {}, "rougeL: 20 rows, 21 are needed"),
    (LOWER, {"expr": "rougeL.value < 0.1", "min_n": 21}, {}, "rougeL: 20 rows, 21 are needed"),
    (LOWER, {"metric": "rougeL"}, {"unfit": {"rougeL": "nobody trusts it"}}, "rougeL may not decide: nobody trusts it"),
    (LOWER, {"expr": "rougeL.value < 0.1"}, {"unfit": {"rougeL": "no"}}, "rougeL may not decide: no"),
    (LOWER, {"metric": "rougeL"}, {"unfit": {"lora.rougeL": "no"}}, "lora.rougeL may not decide: no"),
    (LOWER, {"metric": "rougeL"}, {"unfit": {"base.rougeL": "no"}}, "base.rougeL may not decide: no"),
    (LOWER, {"expr": "rougeL.delta < 0"}, {"unfit": {"base.rougeL": "no"}}, "base.rougeL may not decide: no"),
    (LOWER, {"expr": "lora.rougeL.value < 0"}, {"unfit": {"lora.rougeL": "no"}}, "lora.rougeL may not decide: no"),
    (six(lora=0.02), {"metric": "rougeL"}, {"alpha": 0.01}, "8 rows are the fewest that can prove anything at alpha 0.01"),
    (models(base=figure("rougeL", NAN), lora=figure("rougeL", SPREAD)), {"metric": "rougeL"}, {}, "rougeL of base is nan"),
    (models(base=figure("rougeL", SPREAD), lora=figure("rougeL", NAN)), {"metric": "rougeL"}, {}, "rougeL of lora is nan"),
    (models(base=figure("rougeL", NAN), lora=figure("rougeL", NAN)), {"metric": "rougeL", "max": 1}, {}, "is nan"),
    (models(base=figure("rougeL", SPREAD), lora=figure("rouge1", SPREAD)), {"metric": "rougeL"}, {}, "of lora was not measured"),
    (broken(signature="v2"), {"metric": "rougeL"}, {}, "rougeL: computed differently"),
    (broken(signature="v2"), {"expr": "rougeL.delta < 0"}, {}, "rougeL: computed differently"),
    (broken(comparable="bf16"), {"metric": "rougeL"}, {}, "rougeL: measured on different terms"),
    (broken(ids=tuple(f"other{row}" for row in range(20))), {"metric": "rougeL"}, {}, "rougeL: 0 rows that both models have"),
    (
        models(base=figure("mean_length", SPREAD), lora=figure("mean_length", SPREAD)),
        {"expr": "a.mean_length.delta < 0"},
        {},
        "a.mean_length.delta: no model a was measured; measured: base, lora",
    ),
    (
        custom(SPREAD, None),
        {"metric": "custom.x"},
        {},
        "neither direction of custom.x is worse by itself",
    ),
    (
        custom(SPREAD, True),
        {"metric": "custom.x"},
        {"mode": "non-inferior"},
        "custom.x has no margin of its own: give max_drop or max_ratio",
    ),
    (
        custom(-SPREAD, True),
        {"metric": "custom.x", "max_ratio": 1.1},
        {},
        "max_ratio: custom.x of the baseline is -0.45, and a factor needs more than 0",
    ),
    (
        models(lora=figure("custom.x", SPREAD > 1, Metric("X", "x", True, 2, "", is_share=True))),
        {"metric": "custom.x", "max": 5},
        {"baseline": "lora"},
        "max 5: custom.x is a share from 0 to 1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("figures", "rule", "options", "message"), UNJUDGED, ids=[case[3][:40] for case in UNJUDGED])
def test_what_cannot_be_judged_does_not_pass(
    figures: dict[str, Figures], rule: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    verdict = judge(figures, rule, **options)
    assert verdict.exit_code == 7
    assert "not evaluable" in statuses(verdict)
    assert any(message in one.message for one in verdict.results), [one.message for one in verdict.results]
    soft = judge(figures, {**rule, "severity": "soft"}, **options)
    assert soft.exit_code == 0, "a soft rule warns only"
    assert statuses(soft) == statuses(verdict)


def test_a_gate_that_asks_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without rules"):
        judge(LOWER)


# ---- the verdict


def test_failed_wins_over_not_evaluable_and_one_verdict_says_it_all() -> None:
    verdict = judge(
        LOWER,
        {"metric": "rougeL", "max_drop": 0.01},
        {"metric": "general.nll"},
        {"metric": "rougeL", "max_drop": 0.5},
        {"metric": "rougeL", "severity": "soft"},
    )
    assert statuses(verdict) == ["failed", "not evaluable", "passed", "failed"]
    assert verdict.exit_code == GateFailed.exit_code == 6
    headline = (
        "GATE FAILED (1 failed, 1 not evaluable, 1 passed, 1 of the soft ones not passed): lora: rougeL max_drop 0.01"
    )
    assert verdict.headline == headline
    fact = verdict.fact()
    assert fact["exit_code"] == 6
    first, *lines = fact["message"].splitlines()
    assert first == headline
    assert len(lines) == 2, "what stops, and nothing else"
    assert "ROUGE-L 0.450 to 0.430, -0.020 [-0.020, -0.020]: proven worse, and beyond max_drop 0.01" in lines[0]
    assert "no metric general.nll was measured" in lines[1]
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["results"][0]["status"] == "failed"


def test_a_verdict_of_seven_says_what_could_not_be_judged() -> None:
    verdict = judge(LOWER, {"metric": "general.nll"}, {"metric": "rougeL", "max_drop": 0.5})
    assert verdict.exit_code == GateNotEvaluable.exit_code == 7
    assert verdict.headline == "GATE NOT EVALUABLE (1 not evaluable, 1 passed): general.nll not worse"
    assert "does not pass" in verdict.fact()["hint"]


def test_a_passed_gate_is_a_fact_without_a_complaint() -> None:
    verdict = judge(THREE, {"metric": "rougeL"})
    assert verdict.fact() == {"exit_code": 0, "message": "GATE PASSED (2 passed)", "hint": ""}


def test_gate_json_has_the_rule_the_terms_and_every_figure() -> None:
    verdict = judge(LOWER, {"metric": "rougeL", "max_drop": 0.01}, mode="non-inferior", alpha=0.1)
    found = verdict.to_json()
    assert {key: found[key] for key in ("mode", "alpha", "strict", "exit_code")} == {
        "mode": "non-inferior",
        "alpha": 0.1,
        "strict": False,
        "exit_code": 6,
    }
    (one,) = found["results"]
    assert one["rule"] == {"metric": "rougeL", "max_drop": 0.01}
    assert set(one) == {
        "rule", "text", "model", "against", "metric", "mode", "status", "severity", "message", "value", "baseline", "scale", "n",
        "change", "ci", "se", "p", "p_holm", "mde", "margin", "test",
    }  # fmt: skip
    assert one["margin"] == 0.01
    assert one["n"] == 20
