from __future__ import annotations

from typing import Any

import pytest

from ftcli.stages.eval.summary import WIDTH, blocks, summary_text
from tests.stages.eval.result import only, rich_result, rich_samples, small_result, small_samples


def pair() -> dict[str, Any]:
    return only(rich_result(), ("base", "lora"))


def test_the_table_comes_first_and_the_gate_has_the_last_word():
    lines = summary_text(pair(), rich_samples()).splitlines()
    assert lines[0] == "leakage: 0 exact, 2 near of 200 rows in the known training data"
    assert lines[2].split() == ["base", "lora", "change", "status"]
    assert lines[3] == "perplexity         45.90    17.10       \u00d70.373 [0.351, 0.398]    improved"
    assert lines[-1] == (
        "GATE FAILED (2 failed, 1 not evaluable, 1 inconclusive, 1 passed): lora: general.nll max_drop 0.02"
    )


def test_a_regression_is_loud_and_what_is_inconclusive_says_what_would_have_been_seen():
    text = summary_text(pair(), [])
    assert "+0.067 [+0.024, +0.110]  REGRESSED" in text
    assert "+0.040 [-0.005, +0.085]  inconclusive (MDE 0.064)" in text


def test_every_model_has_its_count_and_what_got_worse():
    text = " ".join(summary_text(rich_result(), []).split())
    assert "lora: 9 improved, 3 REGRESSED (empty_rate +0.250, general.nll +0.067, general.facts_nll +0.170)" in text
    assert "ppo: 2 improved, 1 REGRESSED (general.nll +0.098), 1 equivalent" in text


def test_rules_that_did_not_pass_stand_before_the_verdict_and_those_that_did_not_at_all():
    text = summary_text(pair(), [])
    assert "FAILED: lora: general.nll max_drop 0.02: All probes 1.204 to 1.271" in text
    assert "FAILED (soft): lora: empty_rate max 0.05" in text
    assert "inconclusive: lora: exact_match max_drop 0.02" in text
    assert "rougeL max_drop 0.01" not in text


def test_a_rule_about_no_model_and_a_comparison_that_means_nothing_say_why():
    result = small_result()
    for entry in result["comparisons"]:
        entry |= {"status": "not evaluable", "reason": "one row only"}
    rule = {
        "status": "not evaluable",
        "severity": "hard",
        "model": "",
        "text": "general.nl max 1",
        "message": "not measured",
    }
    result["gate"] = {"results": [rule], "headline": "GATE NOT EVALUABLE"}
    lines = summary_text(result, []).splitlines()
    assert lines[-1] == "GATE NOT EVALUABLE"
    assert lines[-2] == "not evaluable: general.nl max 1: not measured"
    names = [entry["metric"] for entry in result["comparisons"]]
    assert f"not evaluable: lora: {', '.join(names[:3])} and {len(names) - 3} more: one row only" in lines


def test_without_gate_and_leakage_check_neither_is_mentioned():
    text = summary_text(small_result(), small_samples())
    assert "GATE" not in text
    assert "leakage" not in text
    assert text.endswith("lora: 2 improved, 1 REGRESSED (empty_rate +0.250), 1 inconclusive, 1 changed\n")


def test_what_was_not_checked_is_not_called_clean():
    result = pair()
    result["leakage"] = {"checked": [], "exact": 0, "near": 0, "examples": [], "unknown": ["base: from elsewhere"]}
    assert summary_text(result, []).startswith("leakage: not checked, what the models were trained on is not known\n")


def test_the_first_two_answers_stand_side_by_side():
    text = summary_text(small_result(), small_samples("It is\na function."))
    assert "Question 1?" in text
    assert "Question 2?" not in text
    assert "  reference  Reference 0." in text
    assert "  lora       It is a function." in text


def test_an_empty_answer_says_so_and_none_is_none():
    assert "  base       (empty)" in summary_text(small_result(), small_samples(""))
    assert "reference" not in summary_text(small_result(), [])


def test_a_very_long_answer_is_shortened_to_a_few_lines():
    text = summary_text(small_result(), small_samples("word " * 2000))
    assert len(text.splitlines()) < 40
    assert "..." in text


def test_what_would_act_on_a_terminal_is_shown():
    assert "\x1b" not in summary_text(small_result(), small_samples("\x1b[31mred"))


@pytest.mark.parametrize("models", [2, 9, 40])
def test_no_line_is_wider_than_a_terminal(models: int):
    result = only(rich_result(), ("base", "lora"))
    for part in ("models", "artifacts", "work"):
        own = result[part].pop("lora")
        result[part] |= {f"model-{number}": own for number in range(models)}
    result["comparisons"] = [
        {**one, "model": f"model-{number}"} for number in range(models) for one in result["comparisons"]
    ]
    text = summary_text(result, [])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(f"model-{number}: 9 improved" in text for number in range(models))


def test_a_table_that_is_too_wide_goes_on_below_with_its_first_columns():
    table = [["", "base", *(f"model number {number}" for number in range(9))], ["bleu", "1", *["2"] * 9]]
    lines = blocks(table)
    heads = [line for line in lines if "base" in line]
    assert len(heads) == 2
    assert [line.split()[0] for line in lines if line.startswith("bleu")] == ["bleu", "bleu"]
    assert sum(line.count("model number") for line in lines) == 9


def test_a_cell_that_no_line_would_hold_is_cut():
    (line,) = blocks([["x" * 300, "1"]])
    assert line == "x" * 43 + "…  1"
