from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ftcli.core.errors import UsageError
from ftcli.metrics.comparison import Comparison, Drawing, compare
from ftcli.metrics.corpus import corpus_of
from ftcli.metrics.figures import Figure
from ftcli.metrics.names import METRICS, Metric
from ftcli.metrics.statistics import Examples, holm, mean_of
from tests.metrics.test_statistics import BASE, TUNED

QUICK = Drawing(resamples=200)
SCORE = Metric("Score", "custom", True, 3, "higher is better", margin=0.01)
ERRORS = replace(SCORE, higher_is_better=False)
LENGTH = replace(SCORE, higher_is_better=None)
SHARE = replace(SCORE, is_share=True)
PERPLEXITY = METRICS["perplexity"]


def scored(values: Sequence[float], metric: Metric = SCORE, **other: str) -> Figure:
    return Figure("score", metric, mean_of(values), ids(len(values)), other.get("signature", "f1"), other.get("on", ""))


def ids(n: int) -> tuple[str, ...]:
    return tuple(f"row {number}" for number in range(n))


def perplexity(nll: Sequence[float], tokens: Sequence[float], name: str = "perplexity", on: str = "") -> Figure:
    examples = Examples(np.stack([np.asarray(nll, float), np.asarray(tokens, float)], axis=1))
    return Figure(name, METRICS[name], examples, ids(len(nll)), "completion", on)


def answers(worse: int, better: int, same: int) -> tuple[Figure, Figure]:
    """Rights and wrongs of two models: ``worse`` rows that only the first has right, ``better`` that only the second has."""
    first = [1.0] * worse + [0.0] * better + [1.0] * same
    second = [0.0] * worse + [1.0] * better + [1.0] * same
    return scored(first, SHARE), scored(second, SHARE)


def test_twenty_paired_scores():
    found = compare(scored(BASE), scored(TUNED), Drawing())
    assert found.change == pytest.approx(0.0495)
    assert found.se == pytest.approx(0.011180, abs=1e-6)
    assert found.ci == pytest.approx((0.028, 0.0715), abs=0.002)
    assert found.p == pytest.approx(0.00039864, abs=4 * math.sqrt(0.0004 / 10_000))
    assert found.mde == pytest.approx((1.959964 + 0.841621) * 0.011180, abs=1e-5)
    assert (found.metric, found.scale, found.n, found.left_out) == ("score", "difference", 20, 0)
    assert (found.status, found.reason) == ("improved", "")
    assert found.test == "permutation, 10,000 exchanges"


def test_twelve_paired_scores_have_an_exact_p():
    found = compare(scored(BASE[:12]), scored(TUNED[:12]), QUICK)
    assert found.p == pytest.approx(0.01367188, abs=1e-8)
    assert found.test == "permutation, all exchanges"


@pytest.mark.parametrize(
    ("metric", "up", "down"),
    [(SCORE, "improved", "regressed"), (ERRORS, "regressed", "improved"), (LENGTH, "changed", "changed")],
)
def test_the_status_follows_the_good_direction(metric: Metric, up: str, down: str):
    assert compare(scored(BASE, metric), scored(TUNED, metric), QUICK).status == up
    assert compare(scored(TUNED, metric), scored(BASE, metric), QUICK).status == down


def test_perplexity_changes_by_a_factor_with_documents_as_the_unit():
    tokens = [10, 20, 5, 40, 8, 12, 30, 9]
    before = [tokens[row] * 2.0 for row in range(8)]
    after = [tokens[row] * (1.8 + 0.02 * row) for row in range(8)]
    found = compare(perplexity(before, tokens), perplexity(after, tokens), Drawing())
    per_token = (sum(after) - sum(before)) / sum(tokens)
    assert found.scale == "ratio"
    assert found.change == pytest.approx(math.exp(per_token))
    assert found.ci is not None
    assert found.ci[0] < found.change < found.ci[1] < 1
    assert found.p == pytest.approx(2 / 2**8)  # every document went the same way
    assert found.mde == pytest.approx(math.exp((1.959964 + 0.841621) * found.se))
    assert found.status == "improved"  # lower is better
    assert found.oriented() == pytest.approx((-math.log(found.ci[1]), -math.log(found.ci[0])))


@pytest.mark.parametrize(
    ("worse", "better", "p", "status"),
    [
        (10, 3, 0.09228516, "inconclusive"),
        (0, 5, 0.0625, "inconclusive"),
        (8, 8, 1.0, "inconclusive"),
        (25, 9, 0.00904119, "regressed"),
        (9, 25, 0.00904119, "improved"),
    ],
)
def test_rights_and_wrongs_take_mcnemars_exact_test(worse: int, better: int, p: float, status: str):
    found = compare(*answers(worse, better, 60), Drawing())
    assert found.p == pytest.approx(p, abs=1e-8)
    assert found.status == status
    assert found.test == f"exact McNemar, {worse} against {better}"
    assert found.change == pytest.approx((better - worse) / (60 + worse + better))


def test_the_interval_alone_decides_nothing():
    """Five rows that all went up have an interval above 0, and p = 2 / 2^5."""
    for found in (
        compare(*answers(0, 5, 0), QUICK),
        compare(scored(BASE[:5]), scored([one + 0.1 for one in BASE[:5]]), QUICK),
    ):
        assert found.ci is not None
        assert found.ci[0] > 0
        assert found.p == 0.0625
        assert found.status == "inconclusive"


@pytest.mark.parametrize(("n", "points"), [(100, 12.5), (200, 8.9), (400, 6.3), (1000, 4.0)])
def test_what_mcnemars_test_can_detect_follows_from_the_disagreement(n: int, points: float):
    found = compare(*answers(n // 10, n // 10, n - n // 5), QUICK)  # 20 % of the rows
    assert 100 * (found.mde or 0) == pytest.approx(points, abs=0.051)


def test_rows_that_agree_everywhere_still_cannot_show_less_than_six_changes():
    found = compare(*answers(0, 0, 50), QUICK)
    assert (found.change, found.ci, found.p) == (0.0, (0.0, 0.0), 1.0)
    assert found.mde == pytest.approx(6 / 50)  # 2 / 2^6 is the first p below 0.05


def test_five_rows_can_detect_nothing():
    assert compare(scored(BASE[:5]), scored(TUNED[:5]), QUICK).mde is None
    assert compare(*answers(0, 5, 0), QUICK).mde is None
    assert compare(scored(BASE[:6]), scored(TUNED[:6]), QUICK).mde is not None


def test_a_share_of_a_rows_samples_is_not_yes_or_no():
    found = compare(scored([0.5, 1.0, 0.0, 0.25], SHARE), scored([0.5, 0.5, 0.5, 0.25], SHARE), QUICK)
    assert found.test == "permutation, all exchanges"


def test_small_changes_within_the_margin_are_equivalent():
    after = [value + 0.002 * (-1) ** row for row, value in enumerate(BASE)]
    assert compare(scored(BASE), scored(after), QUICK).status == "equivalent"
    assert compare(scored(BASE), scored(after), QUICK, margin=0.0005).status == "inconclusive"
    unmarked = replace(SCORE, margin=None)
    assert compare(scored(BASE, unmarked), scored(after, unmarked), QUICK).status == "inconclusive"
    assert compare(scored(BASE, unmarked), scored(after, unmarked), QUICK, margin=0.01).status == "equivalent"


@pytest.mark.parametrize(("loss", "status"), [(0.002, "equivalent"), (0.02, "regressed")])
def test_a_sure_change_within_the_margin_does_not_matter(loss, status):
    after = [value - loss for value in BASE]
    found = compare(scored(BASE), scored(after), QUICK)
    assert found.p < 0.05
    assert (found.status, found.margin) == (status, 0.01)


def test_margins_of_a_ratio_are_factors():
    tokens = [10.0] * 8
    before, after = [20.0] * 8, [20.0 + 0.1 * (-1) ** row for row in range(8)]  # within 1 % a token
    sides = perplexity(before, tokens), perplexity(after, tokens)
    assert compare(*sides, QUICK).status == "equivalent"
    assert compare(*sides, QUICK, margin=1.0001).status == "inconclusive"
    assert compare(*sides, QUICK).allowance() == pytest.approx(math.log(1.02))


def test_a_margin_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r"margin -0\.1 for score: a difference of 0 or more"):
        compare(scored(BASE), scored(TUNED), QUICK, margin=-0.1)
    with pytest.raises(UsageError, match=r"margin 0\.02 for perplexity: a factor of 1 or more"):
        compare(perplexity([1, 2], [1, 1]), perplexity([1, 2], [1, 1]), QUICK, margin=0.02)


def test_only_rows_that_both_have_count_whatever_their_order():
    first = scored([*BASE, 0.0])  # one row more
    order = np.random.default_rng(0).permutation(20)
    shuffled = scored([TUNED[row] for row in order])
    second = replace(shuffled, ids=tuple(f"row {row}" for row in order))
    found, expected = compare(first, second, Drawing()), compare(scored(BASE), scored(TUNED), Drawing())
    assert (found.n, found.left_out) == (20, 1)
    assert found.change == pytest.approx(expected.change)
    assert found.se == pytest.approx(expected.se)
    assert found.test.endswith("; 1 left out that one side lacks")


def _bytes(name: str) -> Figure:
    return Figure(name, METRICS[name], mean_of([1.0, 2.0]), ids(2), "completion", "fp32")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (
            scored(BASE, on="tokenizer:a|fp32"),
            scored(TUNED, on="tokenizer:b|fp32"),
            "measured on different terms: tokenizer:a against tokenizer:b",
        ),
        (scored(BASE, on="fp32"), scored(TUNED), "measured on different terms: fp32 against nothing"),
        (
            scored(BASE, signature="bleu|tok:13a"),
            scored(TUNED, signature="bleu|tok:zh"),
            "computed differently: tok:13a against tok:zh",
        ),
        (
            perplexity([4, 5], [2, 3], on="tok:a"),
            perplexity([4, 5], [2, 3], on="tok:b"),
            "measured on different terms: tok:a against tok:b; with two tokenizers use bits_per_byte",
        ),
        (
            perplexity([4, 5], [2, 3]),
            perplexity([4, 5], [2, 4]),
            "the same rows have 5 tokens and 6: use bits_per_byte",
        ),
        (
            perplexity([4, 5], [2, 3], "text_perplexity"),
            perplexity([4, 5], [3, 2], "text_perplexity"),
            "the same rows have 5 tokens and 5: use text_bits_per_byte",
        ),
        (scored([0.1, 0.2, math.nan]), scored([0.1, 0.2, 0.3]), "1 of 3 rows have no value (NaN)"),
        (perplexity([1, 2], [0, 0]), perplexity([1, 2], [0, 0]), "a side has no value (NaN)"),
        (perplexity([1, 0, 0], [1, 0, 0]), perplexity([2, 0, 0], [1, 0, 0]), "not every resample of the rows has a value"),
        (
            perplexity([9e5] * 8, [1000] * 8),
            perplexity([1e3] * 8, [1000] * 8),
            "the factor is too large or too small for a number",
        ),
        (scored([0.1]), scored([0.2]), "one row only"),
        (scored([]), scored([]), "no row only"),
        (scored([0.1]), scored([0.2, 0.3]), "one row that both sides have (1 have one of them only)"),
        (
            scored([0.1, 0.2]),
            replace(scored([0.1, 0.2]), examples=Examples(np.ones((2, 2)), corpus_of("ter"), "ter")),
            "kept as different statistics",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_says_why(first: Figure, second: Figure, reason: str):
    found = compare(first, second, QUICK)
    assert found.status == "not evaluable"
    assert found.reason == reason
    assert (found.change, found.ci, found.se, found.p, found.mde) == (None,) * 5
    assert found.oriented() is None


@pytest.mark.parametrize("kind", ["mean", "share", "perplexity", "bleu"])
def test_a_model_against_itself_differs_by_exactly_nothing(kind: str):
    rng = np.random.default_rng(6)
    counts = np.column_stack(
        [np.full((40, 2), 8), np.sort(rng.integers(1, 6, (40, 4)))[:, ::-1], np.tile([8, 7, 6, 5], (40, 1))]
    )
    figure = {
        "mean": scored(rng.random(40).tolist()),
        "share": scored(rng.integers(0, 2, 40).tolist(), SHARE),
        "perplexity": perplexity(rng.random(40) * 90, rng.integers(1, 50, 40)),
        "bleu": Figure(
            "bleu", METRICS["bleu"], Examples(counts.astype(float), corpus_of("bleu/13a"), "bleu/13a"), ids(40), "b"
        ),
    }[kind]
    found = compare(figure, figure, Drawing())
    nothing = 1.0 if kind == "perplexity" else 0.0
    assert (found.change, found.ci, found.se, found.p) == (nothing, (nothing, nothing), 0.0, 1.0)
    assert found.status == "equivalent"
    assert kind == "share" or found.mde == nothing


PAIRS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=25)
MIRRORED = {"improved": "regressed", "regressed": "improved"}


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.sampled_from([SCORE, ERRORS, LENGTH]))
def test_swapping_the_models_flips_the_sign_and_keeps_p(pairs: list[tuple[float, float]], metric: Metric):
    first, second = scored([one for one, _ in pairs], metric), scored([two for _, two in pairs], metric)
    there, back = compare(first, second, QUICK), compare(second, first, QUICK)
    assert there.change is not None
    assert there.change == pytest.approx(-(back.change or 0))
    assert there.p == back.p
    assert there.mde == pytest.approx(back.mde)
    assert there.ci == pytest.approx((-back.ci[1], -back.ci[0]), abs=1e-12) if back.ci else there.ci is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 9), st.floats(1, 9), st.integers(1, 9)), min_size=2, max_size=20))
def test_swapping_the_models_inverts_the_factor_and_keeps_p(rows: list[tuple[float, float, int]]):
    tokens = [count for _, _, count in rows]
    first, second = perplexity([one for one, _, _ in rows], tokens), perplexity([two for _, two, _ in rows], tokens)
    there, back = compare(first, second, QUICK), compare(second, first, QUICK)
    assert there.change == pytest.approx(1 / (back.change or math.nan))
    assert there.p == back.p


@pytest.mark.parametrize("margin", [0.001, 0.02])
def test_swapping_the_models_mirrors_the_status(margin: float):
    for shift in (-0.02, -0.004, 0.0, 0.004, 0.02):
        after = [value + shift + 0.01 * (-1) ** row for row, value in enumerate(BASE)]
        there = compare(scored(BASE), scored(after), QUICK, margin=margin).status
        back = compare(scored(after), scored(BASE), QUICK, margin=margin).status
        assert back == MIRRORED.get(there, there)


def _null(rng: np.random.Generator, metrics: int) -> list[Comparison]:
    """Two models that are alike, on ten rows, measured by ``metrics`` independent metrics."""
    sides = rng.exponential(size=(metrics, 2, 10)) + rng.normal(size=(metrics, 1, 10))
    return [compare(scored(one), scored(two), Drawing(resamples=100)) for one, two in sides]


def _any_alarm(family: list[Comparison]) -> bool:
    corrected = holm([one.p for one in family if one.p is not None])
    return any(one.status in ("improved", "regressed") and p < 0.05 for one, p in zip(family, corrected, strict=True))


def test_models_that_are_alike_give_false_alarms_at_the_stated_rate():
    """Without Holm each metric at most alpha, and half of it in the bad direction; with Holm a family of twelve at most alpha."""
    rng = np.random.default_rng(0)
    families = [_null(rng, 12) for _ in range(500)]
    alarms = np.array([[one.status in ("improved", "regressed") for one in family] for family in families])
    regressed = np.array([[one.status == "regressed" for one in family] for family in families])
    held = [_any_alarm(family) for family in families]
    assert alarms.sum() <= stats.binom.ppf(0.999, alarms.size, 0.05)
    assert regressed.sum() <= stats.binom.ppf(0.999, regressed.size, 0.025)
    assert sum(held) <= stats.binom.ppf(0.999, len(held), 0.05)
    assert alarms.any(axis=1).mean() > 0.3  # what Holm is for: 1 - 0.95^12 = 0.46, less where tests are discrete
    assert sum(held) > 0


def test_yes_and_no_of_models_that_are_alike_give_false_alarms_at_the_stated_rate():
    rng = np.random.default_rng(1)
    draws = (rng.random(size=(600, 2, 40)) < 0.6).astype(float)
    alarms = [compare(scored(one, SHARE), scored(two, SHARE), QUICK).status != "inconclusive" for one, two in draws]
    assert sum(alarms) <= stats.binom.ppf(0.999, 600, 0.05)


def test_a_smaller_alpha_asks_for_more():
    scores = scored(BASE[:12]), scored(TUNED[:12])  # p = 0.0137
    assert compare(*scores, Drawing(resamples=2000)).status == "improved"
    assert compare(*scores, Drawing(confidence=0.99, resamples=2000)).status == "inconclusive"


def test_a_comparison_is_plain_json():
    text = json.dumps(asdict(compare(scored(BASE), scored(TUNED), QUICK)), allow_nan=False)
    assert json.loads(text)["status"] == "improved"
