"""Five measures of training prompts against a sample of real use."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from scipy import stats

from ftcli.data.features import Words, ngram_counts, unit_rows
from ftcli.data.representativeness import category_shift, compare, coverage, expected_coverage, length_shift
from tests.data.test_two_sample import texts


def moved(share: float, count: int = 600) -> list[str]:
    """A sample of the common distribution, of which a share comes from another domain."""
    other = int(share * count)
    return [*texts(other, 3, prefix="other"), *texts(count - other, 2)]


@pytest.fixture(scope="module")
def by_share() -> dict[float, dict]:
    return {share: compare(moved(share), texts(600, 1), seed=1) for share in (0, 0.1, 0.3, 1)}


def test_one_distribution_is_green_throughout(by_share: dict[float, dict]) -> None:
    same = by_share[0]
    assert abs(same["classifier"]["auc"] - 0.5) < 3 * same["classifier"]["chance_se"]
    lights = [same[name]["light"] for name in ("classifier", "divergence", "coverage")]
    assert [*lights, same["lengths"]["prompt characters"]["light"]] == ["green"] * 4
    assert same["coverage"]["share"] == pytest.approx(0.969, abs=0.03)  # 1 - 1/2^5


def test_every_measure_grows_with_what_was_moved(by_share: dict[float, dict]) -> None:
    found = list(by_share.values())
    aucs = [item["classifier"]["auc"] for item in found]
    excess = [item["divergence"]["excess"] for item in found]
    covered = [item["coverage"]["share"] for item in found]
    assert aucs == sorted(aucs)
    assert excess == sorted(excess)
    assert covered == sorted(covered, reverse=True)
    assert aucs[-1] > 0.99
    assert [item["divergence"]["p"] for item in found[1:]] == [round(1 / 201, 6)] * 3
    assert covered[-1] == 0
    assert {by_share[1][name]["light"] for name in ("classifier", "divergence", "coverage")} == {"red"}


def test_the_shuffled_labels_do_not_feel_what_was_moved(by_share: dict[float, dict]) -> None:
    chance = [by_share[share]["divergence"]["chance_mean"] for share in (0, 0.1)]
    assert chance[0] == pytest.approx(chance[1], abs=0.02)


def test_the_order_of_the_rows_decides_nothing() -> None:
    train, reference = [*texts(150, 1), *texts(20, 1)], texts(120, 2)
    groups = [f"group {text[:3]}" for text in train], [f"group {text[:3]}" for text in reference]
    kinds = ["even" if len(text) % 2 else "odd" for text in train], ["odd"] * len(reference)
    shuffled = []
    for order in (random.Random(0), random.Random(1)):
        places = [order.sample(range(len(side)), len(side)) for side in (train, reference)]
        sides = [
            [[side[index] for index in found] for side, found in zip(both, places, strict=True)]
            for both in ((train, reference), groups, kinds)
        ]
        lengths = {"prompt": tuple([len(text) for text in side] for side in sides[0])}
        found = compare(
            *sides[0],
            seed=4,
            groups=tuple(sides[1]),
            lengths=lengths,
            categories={"kind": tuple(sides[2])},
            max_rows=100,
        )
        shuffled.append(json.dumps(found, allow_nan=False))
    assert shuffled[0] == shuffled[1]
    assert json.loads(shuffled[0])["rows"] == {"train": 170, "reference": 120, "compared": 100}


def test_the_reference_itself_is_all_that_is_wanted() -> None:
    found = compare(texts(300, 1), texts(300, 1), seed=1)
    assert found["coverage"]["share"] == 1
    assert found["divergence"]["jsd"] == 0
    assert found["classifier"]["light"] == "green"  # equal texts share a fold, or it would be far below a half


def test_groups_given_hold_near_duplicates_together() -> None:
    def copies(seed: int) -> tuple[list[str], list[str]]:
        pairs = [(f"{text} v{version}", text) for text in texts(60, seed) for version in range(6)]
        return [text for text, _ in pairs], [group for _, group in pairs]

    (train, train_groups), (reference, reference_groups) = copies(1), copies(2)
    assert compare(train, reference, seed=1)["classifier"]["auc"] > 0.95
    grouped = compare(train, reference, seed=1, groups=(train_groups, reference_groups))
    assert grouped["classifier"]["auc"] < 0.7


def test_a_small_reference_says_why_it_is_not_measured() -> None:
    found = compare(texts(300, 1), texts(10, 2), seed=1, categories={"kind": (["a"] * 300, ["a"] * 10)})
    reason = "10 rows on the smaller side, at least 30 needed"
    measures = [found["classifier"], found["divergence"], found["coverage"], *found["lengths"].values()]
    assert [item["reason"] for item in [*measures, found["categories"]["kind"]]] == [reason] * 5
    assert json.dumps(compare([], [], seed=1), allow_nan=False)


def test_between_too_few_and_enough_there_are_numbers_without_lights() -> None:
    found = compare(texts(100, 1), texts(100, 2), seed=1)
    assert found["classifier"]["auc"] is not None
    assert found["classifier"]["light"] is found["divergence"]["light"] is found["coverage"]["light"] is None


def test_lengths_by_hand() -> None:
    found = length_shift(range(1, 101), range(51, 151))  # at 50, half of one lies below and nothing of the other
    assert found["ks"] == 0.5
    assert found["quantiles"]["p50"] == [50, 100]
    assert found["quantiles"]["p95"] == [95, 145]
    assert found["quantiles"]["max"] == [100, 150]


@pytest.mark.parametrize(("shift", "light"), [(0, "green"), (30, "green"), (31, "amber"), (60, "amber"), (61, "red")])
def test_lights_of_lengths(shift: int, light: str) -> None:
    found = length_shift(range(300), range(shift, 300 + shift))
    assert (found["ks"], found["light"]) == (pytest.approx(shift / 300, abs=1e-6), light)


def test_categories_by_hand() -> None:
    train, reference = [*"a" * 500, *"b" * 300, *"c" * 200], [*"a" * 400, *"b" * 400, *"c" * 200]
    found = category_shift(train, reference, seed=1)
    assert found["psi"] == 0.051083  # 0.1 ln(5/4) + 0.1 ln(4/3)
    assert found["by_chance"] == pytest.approx(0.004, rel=0.3)  # chi-squared with 2 degrees, times 1/1000 + 1/1000
    assert found["light"] == "green"
    assert found["table"] == [
        {"value": "b", "train_share": 0.3, "reference_share": 0.4, "psi": 0.028768},
        {"value": "a", "train_share": 0.5, "reference_share": 0.4, "psi": 0.022314},
        {"value": "c", "train_share": 0.2, "reference_share": 0.2, "psi": 0},
    ]


def test_a_value_that_a_side_lacks_counts_half_a_row() -> None:
    found = category_shift(["a"] * 100, ["a"] * 50 + ["b"] * 50, seed=1)
    assert found["psi"] == 2.626133  # 0.5 ln 2 + (0.005 - 0.5) ln 0.01
    assert found["table"][0] == {"value": "b", "train_share": 0, "reference_share": 0.5, "psi": 2.279559}


def test_many_rare_values_are_no_shift() -> None:
    draw = random.Random(1)
    train, reference = ([f"value {draw.randrange(60)}" for _ in range(300)] for _ in range(2))
    found = category_shift(train, reference, seed=1)
    assert found["psi"] > 0.25
    assert found["light"] == "green"


@pytest.mark.parametrize(("train", "reference"), [(50, 50), (5000, 100), (30, 900)])
def test_the_expected_coverage_is_a_draw_without_replacement(train: int, reference: int) -> None:
    """All five nearest others come from the reference with the chance of drawing five of its rows."""
    missed = stats.hypergeom(train + reference - 1, reference - 1, 5).pmf(5)
    assert expected_coverage(train, reference) == pytest.approx(1 - missed)


def test_coverage_is_that_of_a_plain_search() -> None:
    draw = random.Random(3)
    train, reference = (
        [" ".join(draw.choice("abcdefgh") * 2 for _ in range(4)) for _ in range(rows)] for rows in (60, 300)
    )
    features = [unit_rows(ngram_counts(Words.of(side))) for side in (train, reference)]
    vectors = [side.toarray() for side in features]
    nearest = (vectors[1] @ vectors[0].T).max(axis=1)
    among = vectors[1] @ vectors[1].T
    covered = 0
    for index, similarities in enumerate(among.tolist()):
        fifth = sorted(similarities[:index] + similarities[index + 1 :])[-5]
        covered += bool(nearest[index] > 0 and nearest[index] >= fifth - 1e-9)
    found = coverage(*features, reference)
    assert found["share"] == pytest.approx(covered / 300, abs=1e-6)
    assert 0.1 < found["share"] < 0.9
    least = sorted(set(zip(np.round(nearest, 6).tolist(), reference, strict=True)))[:20]
    assert [item["similarity"] for item in found["least_covered"]] == pytest.approx([value for value, _ in least])
    assert len(found["least_covered"]) == 20


def test_the_rows_to_collect_next_come_first() -> None:
    strange = [f"nothing{index} alike{index}" for index in range(5)]
    found = compare(texts(300, 1), [*texts(300, 2), *strange, "?!"], seed=1)["coverage"]
    assert {item["text"] for item in found["least_covered"][:5]} == set(strange)
    assert [item["similarity"] for item in found["least_covered"][:5]] == [0] * 5
    assert "?!" not in [item["text"] for item in found["least_covered"]]  # it has no words to cover


def test_rows_far_from_all_are_covered_by_nothing() -> None:
    alone = [f"lone{index}" for index in range(40)]  # the fifth neighbour has similarity 0, as has every training row
    assert compare(texts(40, 1), alone, seed=1)["coverage"]["share"] == 0
