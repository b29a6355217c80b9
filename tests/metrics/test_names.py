from __future__ import annotations

from ftcli.metrics.hf import TEXT_METRICS
from ftcli.metrics.names import DEFAULT_FAMILIES, FAMILIES, METRICS, unknown_families


def test_every_metric_of_the_default_families_belongs_to_one():
    assert {metric.family for metric in METRICS.values()} == {*FAMILIES, "reward"}


def test_a_misspelt_family_is_told_the_nearest_one():
    assert unknown_families(("rogue", "bleu")) == ["unknown metric rogue; did you mean rouge?"]


def test_a_metric_in_place_of_its_family_is_told_the_family():
    assert unknown_families(("rougeL",)) == ["unknown metric rougeL; it is part of rouge"]


def test_reward_is_explained_as_an_input():
    assert "input `reward`" in unknown_families(("reward",))[0]


def test_a_name_like_nothing_lists_what_is_known():
    assert "known: perplexity, rouge" in unknown_families(("zzz",))[0]


def test_every_family_is_computed_by_something():
    assert set(FAMILIES) == {*TEXT_METRICS, "perplexity", "health"}
    assert set(DEFAULT_FAMILIES) == set(FAMILIES) - {"ter"}


def test_margins_are_on_the_scale_of_their_metric():
    for metric in METRICS.values():
        assert metric.margin is None or (metric.margin > 1 if metric.is_ratio else metric.margin > 0)
    assert {name for name, metric in METRICS.items() if metric.margin is None} == {
        "reward_sampled",
        "reward_greedy",
        "mean_length",
    }
