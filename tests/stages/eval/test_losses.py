from __future__ import annotations

from ftcli.stages.eval.losses import CUT, evenly, shown_rows
from tests.stages.eval.result import rich_result, rich_samples, small_result, small_samples


def ids(group):
    return [row["id"] for row in group["rows"]]


def test_rows_that_lost_most_come_first_by_text_and_by_nll():
    by_text, by_nll, evenly_taken = shown_rows(rich_result(), rich_samples(), "lora")
    # ROUGE-L fell by 0.9 on row 0 and by 0.5 on rows 1 and 4, which stay in their order
    assert ids(by_text) == ["row-0", "row-1", "row-4"]
    assert by_text["note"] == "5 of 8 rows lost, 2 gained"
    # four tokens each: (12 - 6) / 4, (5.5 - 4) / 4, (9.5 - 9) / 4
    assert ids(by_nll) == ["row-2", "row-6", "row-0"]
    assert by_nll["rows"][0]["figures"][1] == {"title": "nll", "text": "1.500 → 3.000", "is_worse": True}
    assert [row["repeated"] for row in by_nll["rows"]] == [False, False, True]
    assert ids(evenly_taken) == ["row-0", "row-2", "row-5"]


def test_where_less_is_better_a_rise_is_the_loss():
    result, samples = rich_result(), rich_samples()
    result["metrics"]["rougeL"] |= {"higher_is_better": False}
    assert ids(shown_rows(result, samples, "lora")[0]) == ["row-5", "row-7"]


def test_a_reference_of_other_tokens_is_compared_as_a_whole():
    samples = rich_samples()
    samples[0]["models"]["lora"]["reference_tokens"] = 8
    by_nll = shown_rows(rich_result(), samples, "lora")[1]
    assert by_nll["title"].endswith("nats in all")
    assert by_nll["rows"][0]["figures"][1]["text"] == "6.000 → 12.000"


def test_a_row_without_a_value_is_passed_over():
    samples = rich_samples()
    del samples[0]["models"]["lora"]["greedy"]["metrics"]["rougeL"]
    samples[2]["models"]["lora"]["reference_nll"] = float("nan")
    by_text, by_nll, _ = shown_rows(rich_result(), samples, "lora")
    assert ids(by_text) == ["row-1", "row-4", "row-2"]
    assert ids(by_nll) == ["row-6", "row-0"]


def test_words_that_one_answer_has_alone_are_marked():
    row = shown_rows(rich_result(), rich_samples(), "lora")[1]["rows"][1]
    before, after = row["answers"]
    assert (before["tag"], [text for text, only in before["pieces"] if only]) == ("del", ["readline"])
    assert (after["tag"], [text for text, only in after["pieces"] if only]) == ("ins", ["readlines"])


def test_a_group_in_which_nothing_was_lost_stays_and_says_so():
    groups = shown_rows(small_result(), small_samples(), "lora")
    assert [(group["title"], len(group["rows"])) for group in groups] == [
        ("Lost most: ROUGE-L", 0),
        ("Nobody picked these", 3),
    ]


def test_the_baseline_alone_is_shown_once():
    (group,) = shown_rows(small_result(), small_samples(), "base")
    assert [answer["label"] for answer in group["rows"][0]["answers"]] == ["base"]


def test_rows_of_plain_text_have_neither_prompt_nor_answers():
    samples = [{**row, "prompt": []} for row in rich_samples()]
    for row in samples:
        for own in row["models"].values():
            own.pop("greedy", None)
    (by_nll,) = shown_rows(rich_result(), samples, "lora")
    assert ids(by_nll) == ["row-2", "row-6", "row-0"]
    assert by_nll["rows"][0]["answers"] == by_nll["rows"][0]["prompt"] == []


def test_the_end_of_a_long_text_is_left_to_the_file():
    samples = small_samples("x" * (CUT + 1234))
    (group,) = shown_rows(small_result(), samples, "base")
    ((text, _),) = group["rows"][0]["answers"][0]["pieces"]
    assert text == "x" * CUT + " … 1,234 more characters in samples.jsonl"


def test_rows_are_taken_at_even_distances():
    rows = small_samples()[:8]
    assert [row["id"] for row in evenly(rows, 4)] == ["row-0", "row-2", "row-4", "row-6"]
    assert [row["id"] for row in evenly(rows[:2], 4)] == ["row-0", "row-1"]
    assert evenly(rows, 0) == evenly([], 3) == []
