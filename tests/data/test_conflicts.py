"""Conflicts among the rows of one prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from ftcli.data.conflicts import judge, label_of, may_be_label, possible_mislabels

DROPPING = ("drop_minority", "drop_all", "keep_first")


def chat(answer: str, name: str = "", prompt: str = "Is it good?", line: int = 1) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": name or f"id-{answer}", "messages": messages, "meta": {"file": "f", "line": line}}


def chats(*answers: str) -> list[dict[str, Any]]:
    return [chat(answer, f"{index:02}", line=index) for index, answer in enumerate(answers)]


def pair(chosen: str, rejected: str, name: str) -> dict[str, Any]:
    chosen_side, rejected_side = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    row = {"prompt": [{"role": "user", "content": "q"}], "chosen": chosen_side, "rejected": rejected_side}
    return {"id": name, **row, "meta": {"file": "f", "line": int(name)}}


def labelled(*judged: tuple[str, bool]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{index:02}",
            "prompt": [{"role": "user", "content": "q"}],
            "completion": [{"role": "assistant", "content": text}],
            "label": label,
            "meta": {"file": "f", "line": index},
        }
        for index, (text, label) in enumerate(judged)
    ]


@given(st.lists(st.sampled_from(["yes", "no.", "\u00e9\u0301", "\u6f22\u5b57", "-", " ", "\n\n", "\t"]), max_size=12))
def test_every_label_is_short_enough_for_one(parts: list[str]) -> None:
    text = " ".join(parts)
    assert may_be_label(chat(text)) or label_of(text) is None


def test_long_answers_and_other_rows_have_no_label() -> None:
    assert not may_be_label(chat("one two three four five six"))
    assert not may_be_label(pair("yes", "no", "1"))


def test_a_hard_conflict_by_hand() -> None:
    found = judge(chats("positive", "negative", "Positive.", "positive "), label_vocabulary=2)
    assert found is not None
    assert found.to_json() == {
        "kind": "hard",
        "prompt": "Is it good?",
        "distinct": 2,
        "answers": [
            {"text": "positive", "count": 3, "rows": [{"file": "f", "line": line} for line in (0, 2, 3)]},
            {"text": "negative", "count": 1, "rows": [{"file": "f", "line": 1}]},
        ],
        "entropy": 0.811278,  # of 3/4 and 1/4, in bits
        "min_similarity": None,
        "action": "report",
        "rows_dropped": 0,
    }


def test_a_soft_conflict_has_the_rouge_of_its_most_different_answers() -> None:
    answers = ["the cat sat on the mat today", "a cat sat on a mat", "dogs bark at the cat all day long"]
    found = judge(chats(*answers), label_vocabulary=3)
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    scores = [scorer.score(one, other)["rougeL"].fmeasure for one in answers for other in answers]
    assert found is not None
    assert (found.kind, found.entropy) == ("soft", None)
    assert found.min_similarity == pytest.approx(min(scores))


@pytest.mark.parametrize(
    "answers",
    [
        ["Yes.", "yes", "YES"],
        ["One long answer, in six words"],
        ["the  same  long answer it is", "The same long answer it is"],
    ],
)
def test_agreement_is_no_conflict(answers: list[str]) -> None:
    assert judge(chats(*answers), label_vocabulary=2) is None


@pytest.mark.parametrize(("vocabulary", "kind"), [(50, "hard"), (51, "soft")])
def test_short_answers_are_labels_if_there_are_few_of_them(vocabulary: int, kind: str) -> None:
    found = judge(chats("yes", "no"), label_vocabulary=vocabulary)
    assert found is not None
    assert found.kind == kind


def test_one_long_answer_makes_a_conflict_soft() -> None:
    found = judge(chats("yes", "no", "it depends on how you look at it"), label_vocabulary=2)
    assert found is not None
    assert found.kind == "soft"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Very  Positive.", "very positive"),
        ("one two three four five", "one two three four five"),
        ("one two three four five six", None),
        ("\u6b63\u9762", "\u6b63\u9762"),
        ("\u8fd9\u662f\u4e00\u4e2a\u957f\u7b54\u6848", None),
        ("+", "+"),
        ("...", "..."),
        (" ", None),
        ("well-known/state-of-the-art", None),
    ],
)
def test_labels(text: str, label: str | None) -> None:
    assert label_of(text) == label


@pytest.mark.parametrize(
    ("answers", "policy", "dropped"),
    [
        (["no", "yes", "yes"], "report", ()),
        (["no", "yes", "yes"], "drop_minority", (0,)),
        (["no", "yes"], "drop_minority", (0, 1)),
        (["no", "no", "yes", "yes", "maybe"], "drop_minority", (0, 1, 2, 3, 4)),
        (["no", "yes", "yes"], "drop_all", (0, 1, 2)),
        (["no", "yes", "No."], "keep_first", (1,)),
        (["a long answer of six words", "no", "no"], "drop_minority", ()),
        (["a long answer of six words", "no", "no"], "keep_first", (1, 2)),
        (["a long answer of six words", "no", "no"], "drop_all", (0, 1, 2)),
    ],
)
def test_policies(answers: list[str], policy: Any, dropped: tuple[int, ...]) -> None:
    found = judge(chats(*answers), label_vocabulary=3, policy=policy)
    assert found is not None
    assert found.drop == dropped
    assert found.action == (policy if dropped else "report")


@given(st.lists(st.sampled_from(["yes", "no", "No.", "maybe"]), min_size=2, max_size=8), st.sampled_from(DROPPING))
def test_what_is_kept_of_a_hard_conflict_agrees(answers: list[str], policy: Any) -> None:
    rows = chats(*answers)
    found = judge(rows, label_vocabulary=3, policy=policy)
    kept = [row for index, row in enumerate(rows) if not found or index not in found.drop]
    assert not kept or judge(kept, label_vocabulary=3) is None


@given(
    st.lists(
        st.sampled_from(["yes", "no", "a long answer of seven words, not less", "another"]), min_size=2, max_size=8
    ),
    st.sampled_from(("report", *DROPPING)),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_rows_decides_nothing(answers: list[str], policy: Any, order: Any) -> None:
    rows = chats(*answers)
    mixed = list(rows)
    order.shuffle(mixed)
    one, other = (judge(side, label_vocabulary=9, policy=policy) for side in (rows, mixed))
    assert (one is None) == (other is None)
    if one and other:
        assert json.dumps(one.to_json()) == json.dumps(other.to_json())
        assert {rows[index]["id"] for index in one.drop} == {mixed[index]["id"] for index in other.drop}


def test_a_cycle_names_its_answers_and_rows() -> None:
    rows = [pair("a", "b", "1"), pair("b", "c", "2"), pair("c", "a", "3"), pair("a", "z", "4")]
    found = judge(rows, label_vocabulary=99, policy="keep_first")
    assert found is not None
    assert (found.kind, found.drop, found.action) == ("cycle", (2,), "keep_first")
    shown = found.to_json()["answers"]
    assert [(item["text"], [row["line"] for row in item["rows"]]) for item in shown] == [
        ("a", [1, 3]),
        ("b", [1, 2]),
        ("c", [2, 3]),
    ]


def test_preferences_about_case_and_layout_are_legal() -> None:
    assert judge([pair("Yes", "yes", "1"), pair("a\nb", "a b", "2")], label_vocabulary=2) is None


def test_a_ranking_can_contradict_a_ranking() -> None:
    def ranked(order: str, name: str) -> dict[str, Any]:
        candidates = [{"content": text, "rank": rank} for rank, text in enumerate(order, start=1)]
        row = {"id": name, "prompt": [{"role": "user", "content": "q"}], "candidates": candidates}
        return {**row, "meta": {"file": "f", "line": int(name)}}

    assert judge([ranked("abc", "1"), ranked("acd", "2")], label_vocabulary=9) is None
    found = judge([ranked("abc", "1"), ranked("cad", "2")], label_vocabulary=9, policy="drop_all")
    assert found is not None
    assert found.drop == (0, 1)
    assert [answer.text for answer in found.answers] == ["a", "c", "b"]  # b lies between a and c, d on no circle


def test_a_completion_with_both_labels() -> None:
    rows = labelled(("good one", True), ("bad one", False), ("good one ", False), ("good one", True))
    found = judge(rows, label_vocabulary=9, policy="drop_minority")
    assert found is not None
    assert (found.kind, found.drop) == ("label", (2,))
    assert [(answer.text, answer.label, len(answer.rows)) for answer in found.answers] == [
        ("good one", True, 2),
        ("good one", False, 1),
    ]
    assert [item["label"] for item in found.to_json()["answers"]] == [True, False]
    assert judge(labelled(("a", True), ("b", False)), label_vocabulary=9) is None


@pytest.mark.parametrize(
    ("policy", "dropped"), [("report", ()), ("drop_minority", (0, 1)), ("drop_all", (0, 1)), ("keep_first", (1,))]
)
def test_policies_on_labels_that_tie(policy: Any, dropped: tuple[int, ...]) -> None:
    found = judge(labelled(("a", True), ("a", False), ("b", True)), label_vocabulary=9, policy=policy)
    assert found is not None
    assert found.drop == dropped


def test_rows_without_answers_cannot_conflict() -> None:
    prompts = [{"id": str(index), "prompt": [{"role": "user", "content": "q"}]} for index in range(2)]
    assert judge(prompts, label_vocabulary=1) is None
    assert judge([{"id": "1", "text": "a"}, {"id": "2", "text": "a"}], label_vocabulary=1) is None


def test_tool_calls_are_answers() -> None:
    def calling(name: str) -> dict[str, Any]:
        row = chat("", name)
        function = {"name": name, "arguments": {"x": 1}}
        row["messages"][-1]["tool_calls"] = [{"type": "function", "function": function}]
        return row

    assert judge([calling("add"), {**calling("add"), "id": "other"}], label_vocabulary=9) is None
    found = judge([calling("add"), calling("subtract")], label_vocabulary=9)
    assert found is not None
    assert len(found.answers) == 2


def test_a_conflict_of_many_rows_is_shown_in_part() -> None:
    rows = chats(*(f"answer number {index} of a great many" for index in range(150)))
    found = judge(rows, label_vocabulary=99)
    assert found is not None
    shown = found.to_json()
    assert (shown["distinct"], len(shown["answers"])) == (150, 20)
    assert len(json.dumps(judge([chat("x" * 9999, "1"), chat("y " * 9999, "2")], label_vocabulary=9).to_json())) < 1500  # type: ignore[union-attr]


def test_near_prompts_with_other_labels_may_be_mislabelled() -> None:
    good, bad = chat("positive", "b", "I like this film a lot", 2), chat("Negative", "a", "I like this film a lot!", 5)
    same, free = chat("Positive.", "c", "I liked this film a lot", 7), chat("It was a rather long film", "d")
    pairs = [(good, bad, 0.95), (good, same, 0.97), (same, bad, 0.9712345678), (good, free, 0.99)]
    found = possible_mislabels(pairs, label_vocabulary=2)
    assert found[1] == {
        "jaccard": 0.95,
        "prompts": ["I like this film a lot!", "I like this film a lot"],
        "labels": ["negative", "positive"],
        "rows": [{"file": "f", "line": 5}, {"file": "f", "line": 2}],
    }
    assert [item["jaccard"] for item in found] == [0.971235, 0.95]
    assert found == possible_mislabels([(two, one, value) for one, two, value in pairs[::-1]], label_vocabulary=2)
    assert possible_mislabels(pairs, label_vocabulary=51) == []
