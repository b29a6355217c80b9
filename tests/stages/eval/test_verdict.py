from __future__ import annotations

import pytest

from ftcli.stages.eval.verdict import banner, power, rows_for_margin, standings
from tests.stages.eval.result import compared, rich_result, small_result


@pytest.mark.parametrize(
    ("code", "level", "title"),
    [
        (0, "good", "Gate passed"),
        (6, "bad", "Gate failed"),
        (7, "look", "Gate could not be evaluated"),
    ],
)
def test_the_banner_follows_the_exit_code(code, level, title):
    result = rich_result()
    result["gate"]["exit_code"] = code
    found = banner(result)
    assert (found["level"], found["title"]) == (level, title)


def test_without_a_gate_the_banner_says_so():
    assert banner(small_result())["title"] == "No gate was set"


def test_what_did_not_pass_is_named_failures_first_and_soft_ones_last():
    found = banner(rich_result())
    assert [(one["model"], one["status"], one["severity"]) for one in found["open"]] == [
        ("lora", "failed", "hard"),
        ("ppo", "failed", "hard"),
        ("lora", "not evaluable", "hard"),
        ("lora", "inconclusive", "hard"),
        ("lora", "failed", "soft"),
    ]
    assert found["text"] == (
        "Of 5 checks: 2 failed, 1 not evaluable, 1 inconclusive, 1 passed. 1 soft check did not pass."
    )


@pytest.mark.parametrize(
    ("mode", "words"), [("proven", "is proven"), ("non-inferior", "nothing was lost"), ("point", "without")]
)
def test_the_terms_of_the_gate_are_told(mode, words):
    result = rich_result()
    result["gate"] |= {"mode": mode, "strict": True}
    note = banner(result)["note"]
    assert words in note
    assert "inconclusive counts as not evaluable" in note


def test_metrics_are_counted_by_status():
    lora, ppo = standings(rich_result())
    assert {one["name"]: len(one["titles"]) for one in lora["statuses"]} == {
        "improved": 9, "regressed": 3, "equivalent": 2, "inconclusive": 4, "not evaluable": 1, "changed": 4,
    }  # fmt: skip
    assert ppo["statuses"][1] == {"name": "regressed", "titles": ["All probes"]}


def test_rows_for_the_margin_grow_with_the_square():
    entry = compared("lora", "base", "rougeL", 0.01, (-0.02, 0.04), 0.4, 0.031, "inconclusive")
    assert rows_for_margin(entry) == 961  # 100 * (0.031 / 0.010) ** 2
    ratio = compared("lora", "base", "perplexity", 0.99, (0.95, 1.03), 0.4, 1.09, "inconclusive")
    assert rows_for_margin(ratio) == 3788  # 200 * (log 1.09 / log 1.02) ** 2 = 200 * (0.0861777 / 0.0198026) ** 2
    assert rows_for_margin({**entry, "margin": None}) is None
    assert rows_for_margin({**entry, "margin": 0.0}) is None


def test_what_can_be_seen_is_said_for_each_headline_metric():
    found = {one["name"]: one for one in power(rich_result())}
    assert found["rougeL"]["text"] == "0.031"
    assert (found["rougeL"]["n"], found["rougeL"]["needed"], found["rougeL"]["inconclusive"]) == (100, 961, ["ppo"])
    assert found["chrf"]["text"] == "3.30 (lora), 0.95 (ppo)"
    assert found["perplexity"]["text"] == "9.0 %"
    assert "judge.llm" not in found  # nothing of it could be evaluated


def test_what_means_nothing_is_said_to_detect_nothing_however_little_it_varies():
    result = rich_result()
    for one in result["comparisons"]:
        if one["metric"] == "rougeL":
            one["status"] = "not evaluable"
    assert "rougeL" not in {one["name"] for one in power(result)}


def test_rows_that_show_the_margin_are_enough():
    result = rich_result()
    for one in result["comparisons"]:
        one["mde"] = None if one["mde"] is None else one["margin"]
    found = {one["name"]: one for one in power(result)}
    assert found["rougeL"]["is_enough"]
    assert found["perplexity"]["is_enough"]
