from __future__ import annotations

import math

import pytest

from ftcli.stages.eval import tables
from tests.stages.eval.result import compared, only, rich_result, small_result


def entry_of(metric: str):
    return next(one for one in rich_result()["comparisons"] if one["metric"] == metric)


def test_with_one_compared_model_a_row_tells_the_change_and_its_status():
    assert tables.short_table(small_result()) == [
        ["", "base", "lora", "change", "status"],
        ["perplexity", "45.90", "17.10", "\u00d70.373 [0.351, 0.398]", "improved"],
        ["rougeL", "0.190", "0.239", "+0.049 [+0.028, +0.071]", "improved"],
        ["exact_match", "0.020", "0.060", "+0.040 [-0.005, +0.085]", "inconclusive (MDE 0.064)"],
        ["empty_rate", "0.000", "0.250", "+0.250 [+0.170, +0.340]", "REGRESSED"],
        ["mean_length", "98.2", "41.7", "-56.5 [-63.1, -50.2]", "changed"],
        ["trained", "-", "3.50%", "", ""],
        ["training time", "-", "1 min 01 s", "", ""],
        ["peak memory", "-", "2.0 GiB", "", ""],
        ["on disk", "517 MiB", "22.0 MiB", "", ""],
    ]


def test_with_several_models_each_value_has_a_mark():
    table = tables.short_table(rich_result())
    assert table[0] == ["", "base", "lora", "ppo"]
    assert table[1] == ["perplexity", "45.90", "17.10 ▲", "21.40 !"]
    assert ["rougeL", "0.190", "0.239 ▲", "0.200 ?"] in table
    assert ["bleu", "4.12", "7.90 ▲", "4.50"] in table  # that was not compared
    assert ["general.nll", "1.204", "1.271 ▼", "1.302 ▼"] in table
    assert ["chrf", "21.20", "27.93 ▲", "21.25 ="] in table
    assert ["mean_length", "98.2", "41.7 ↔", "120.4 ↔"] in table


def test_whatever_regressed_is_shown_beside_the_headline():
    names = tables.shown_names(rich_result())
    assert "general.facts_nll" in names
    assert "general.code_bpb" not in names


def test_a_rule_brings_its_metric_into_the_headline():
    result = rich_result()
    assert "general.code_bpb" not in tables.headline(result)
    result["gate"]["results"][0]["metric"] = "general.code_bpb"
    assert "general.code_bpb" in tables.headline(result)
    assert "custom.polite" in tables.headline(result)  # a user's own


def test_bits_per_byte_stand_in_where_two_perplexities_cannot_be_compared():
    result = small_result()
    result["metrics"]["bits_per_byte"] = result["metrics"]["rougeL"]
    for own in result["models"].values():
        own["bits_per_byte"] = own["rougeL"]
    assert "bits_per_byte" not in tables.headline(result)
    result["comparisons"][0]["status"] = "not evaluable"
    assert "bits_per_byte" in tables.headline(result)


def test_one_model_alone_has_a_column():
    table = tables.short_table(only(small_result(), ("base",)))
    assert table[:2] == [["", "base"], ["perplexity", "45.90"]]


def test_rewards_are_shown_with_their_standard_error():
    assert tables.cell(rich_result(), "base", "reward_sampled") == "-0.600 ± 0.092"


def test_a_metric_that_a_model_has_not_is_a_dash():
    assert tables.cell(rich_result(), "base", "judge.llm") == "-"


def test_the_legend_says_how_much_was_measured_and_what_marks_mean():
    assert tables.legend(small_result()) == (
        "200 rows scored, 100 answered, 3 left out; change of lora against base with its 95% interval; "
        "MDE: the smallest change found 4 times in 5"
    )
    assert tables.legend(rich_result()) == (
        "200 rows scored, 100 answered, 3 left out; against base: ▲ improved, ▼ regressed, = equivalent, ? inconclusive, "
        "! not evaluable, ↔ changed; MDE: the smallest change found 4 times in 5; 6 more metrics in report.html"
    )


def test_metrics_are_counted_by_status_in_one_order():
    found = tables.counts(rich_result(), "ppo")
    assert {name: len(names) for name, names in found.items()} == {
        "improved": 2, "regressed": 1, "equivalent": 1, "inconclusive": 3, "not evaluable": 2, "changed": 1,
    }  # fmt: skip
    assert found["regressed"] == ["general.nll"]


def test_markdown_keeps_a_label_with_a_bar_in_one_cell():
    text = tables.markdown([["Model", "BLEU"], ["a|b", "1.00"]], "note")
    assert text.splitlines() == ["| Model | BLEU |", "| --- | ---: |", "| a\\|b | 1.00 |", "", "note"]


def test_a_change_is_a_difference_with_sign_or_a_factor():
    metrics = rich_result()["metrics"]
    ratio, difference = entry_of("perplexity"), entry_of("rougeL")
    assert tables.change(ratio, metrics["perplexity"]) == "\u00d70.373 [0.351, 0.398]"
    assert tables.change(difference, metrics["rougeL"]) == "+0.049 [+0.028, +0.071]"
    assert tables.change({**difference, "ci": None}, metrics["rougeL"]) == "+0.049"
    assert tables.change({**difference, "change": None}, metrics["rougeL"]) == "-"


def test_a_change_that_rounds_to_none_is_not_printed_as_none():
    metric = rich_result()["metrics"]["rougeL"]
    assert tables.amount(entry_of("rougeL"), metric, 0.000021) == "+2e-05"
    assert tables.amount(entry_of("rougeL"), metric, -0.0004) == "-4e-04"
    assert tables.amount(entry_of("rougeL"), metric, 0.0) == "+0.000"
    assert tables.amount(entry_of("rougeL"), metric, 0.0006) == "+0.001"


def test_what_can_be_detected_is_a_difference_or_a_share_of_a_factor():
    metrics = rich_result()["metrics"]
    assert tables.detectable(entry_of("perplexity"), metrics["perplexity"]) == "9.0 %"
    assert tables.detectable(entry_of("rougeL"), metrics["rougeL"]) == "0.031"
    assert tables.detectable({**entry_of("rougeL"), "mde": None}, metrics["rougeL"]) == "-"
    still = {**entry_of("rougeL"), "mde": 0.0, "status": "inconclusive"}  # no row varies
    assert tables.detectable(still, metrics["rougeL"]) == "-"
    assert tables.status(still, metrics["rougeL"]) == "inconclusive"


def test_oriented_changes_have_better_to_the_right():
    metrics = rich_result()["metrics"]
    assert tables.oriented(entry_of("rougeL"), metrics["rougeL"]) == (0.049, 0.028, 0.0715)
    assert tables.oriented(entry_of("empty_rate"), metrics["empty_rate"]) == (-0.25, -0.34, -0.17)
    lower = compared("lora", "base", "perplexity", 0.5, (0.25, 1.0), 0.01, 1.1, "improved")
    log2 = math.log(2)
    assert tables.oriented(lower, metrics["perplexity"]) == pytest.approx((log2, 0.0, 2 * log2))
    assert tables.oriented({**lower, "ci": None}, metrics["perplexity"]) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (512, "512 B"), (2048, "2.0 KiB"), (150 * 2**20, "150 MiB"), (1.5 * 2**30, "1.5 GiB")],
)
def test_sizes(count, text):
    assert tables.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (9.04, "9.0 s"), (59.9, "1 min 00 s"), (119.6, "2 min 00 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text
