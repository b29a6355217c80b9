from __future__ import annotations

import pytest

from ftcli.stages.eval import tables
from tests.stages.eval.result import small_result


def test_the_short_table_has_a_row_for_each_model():
    assert tables.short_table(small_result()) == [
        ["Model", "Perplexity", "ROUGE-L", "Trained", "Training", "Peak memory", "On disk"],
        ["base", "45.90", "0.190", "-", "-", "-", "517 MiB"],
        ["lora", "17.10", "0.200 ≈", "3.50%", "1 min 01 s", "2.0 GiB", "22.0 MiB"],
    ]


def test_rewards_are_shown_with_their_standard_error():
    result = small_result()
    for figures in result["models"].values():
        figures["reward_sampled"] = {**figures["rougeL"], "value": -0.6}
    assert tables.cell(result, "base", "reward_sampled") == "-0.600 ± 0.250"


def test_the_legend_says_how_much_was_measured_and_what_noise_is():
    assert tables.legend(small_result()) == ("9 rows scored, 8 answered; ≈ within noise of base (permutation p ≥ 0.05)")


def test_markdown_keeps_a_label_with_a_bar_in_one_cell():
    text = tables.markdown([["Model", "BLEU"], ["a|b", "1.00"]], "note")
    assert text.splitlines() == ["| Model | BLEU |", "| --- | ---: |", "| a\\|b | 1.00 |", "", "note"]


def test_a_change_is_a_difference_with_sign_or_a_ratio():
    ratio, difference = small_result()["comparisons"][:2]
    assert tables.change(ratio) == "\u00d70.373 [0.273, 0.473]"
    assert tables.change(difference) == "+0.010 [-0.090, +0.110]"
    assert tables.change({**difference, "ci": None}) == "+0.010"
    assert tables.change({**difference, "change": None}) == "-"


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
