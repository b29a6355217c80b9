from __future__ import annotations

from ftcli.metrics.names import FAMILIES, METRICS, unknown_families


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
