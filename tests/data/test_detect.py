"""Detection of the format from the first rows, and what is said where nothing or too much fits."""

from __future__ import annotations

from typing import Any

import pytest

from ftcli.core.errors import BadData
from ftcli.data.detect import detect, detect_row_type, scores
from ftcli.data.records import Record
from ftcli.data.rows import RowType

QA = {"question": "q", "answer": "a"}
CHAT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
PAIR = {"prompt": "q", "chosen": "c", "rejected": "r"}


def sample(*values: dict[str, Any]) -> list[Record]:
    return [Record("f.jsonl", line, value) for line, value in enumerate(values, start=1)]


@pytest.mark.parametrize(("odd", "found"), [(0, True), (10, True), (11, False), (100, False)])
def test_a_format_must_fit_95_of_100_rows(odd: int, found: bool) -> None:
    rows = sample(*[QA] * (200 - odd), *[{"oops": 1}] * odd)
    if found:
        assert detect(rows) == "question_answer"
        return
    share = f"question_answer {(200 - odd) / 2:.1f}%"
    with pytest.raises(
        BadData, match=f"no format fits 95% of the first 200 rows: {share}; their columns are: "
    ) as caught:
        detect(rows)
    assert "--format question_answer" in caught.value.hint
    assert "--map '{prompt: question, completion: answer}'" in caught.value.hint


def test_only_the_first_200_rows_count() -> None:
    assert detect(sample(*[QA] * 200, *[{"oops": 1}] * 300)) == "question_answer"


def test_scores_are_shares_of_rows_with_columns_of_the_right_kind() -> None:
    found = scores(
        sample({"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": None}, {"prompt": ["x"]}, QA)
    )
    assert found["prompt"] == 0.5
    assert found["prompt_completion"] == 0.25
    assert found["question_answer"] == 0.25
    assert found["alpaca"] == 0
    assert next(iter(found)) == "prompt"


def test_two_fitting_formats_are_named_and_not_chosen_between() -> None:
    rows = sample({"question": "q", "answer": "a", "instruction": "i", "output": "o"})
    with pytest.raises(
        BadData, match="the rows fit the formats alpaca, question_answer alike; their columns are: "
    ) as caught:
        detect(rows)
    assert caught.value.hint == "say which: --format alpaca"


def test_unknown_columns_are_listed_with_a_map_to_type() -> None:
    with pytest.raises(BadData, match="these columns: tool, command") as caught:
        detect(sample({"tool": "ls", "command": "ls -l"}))
    assert "--map '{prompt: tool, completion: command}'" in caught.value.hint
    assert "alpaca needs instruction+output" in caught.value.hint
    with pytest.raises(BadData) as caught:
        detect(sample({"body": "t"}))
    assert "--map '{text: body}'" in caught.value.hint
    with pytest.raises(BadData, match="these columns: none") as caught:
        detect(sample({}))
    assert "--map '{prompt: COLUMN, completion: COLUMN}'" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({**PAIR, "messages": []}, "preference"),
        ({"messages": [], "chosen": [], "rejected": []}, "preference"),
        ({"prompt": "q", "completion": "a", "label": 1}, "unpaired"),
        ({"prompt": "q", "completion": "a", "label": 3}, "prompt_completion"),
        ({"prompt": "q", "completion": "a", "label": "true"}, "unpaired"),
        ({"prompt": "q", "completion": "a", "text": "q a"}, "prompt_completion"),
        ({"prompt": "q", "responses": ["a", "b"], "text": "t"}, "ranking"),
        ({"messages": [], "prompt": "q"}, "messages"),
        ({"messages": "q: a", "prompt": "q"}, "prompt"),
        ({"text": "t", "label": 1}, "text"),
        ({"question": "q", "answer": 7}, "question_answer"),
    ],
)
def test_what_several_formats_could_claim_is_settled(value: dict[str, Any], name: str) -> None:
    assert detect(sample(value)) == name


def test_a_pair_that_is_also_a_ranking_is_not_guessed() -> None:
    with pytest.raises(BadData, match="preference, ranking alike"):
        detect(sample({**PAIR, "candidates": ["a", "b"]}))


def test_a_map_leaves_only_formats_that_read_its_columns() -> None:
    rows = sample({"question": "q", "answer": "a", "instruction": "i", "output": "o"})
    assert detect(rows, {"question": "ask"}) == "question_answer"


def test_mixed_rows_have_the_type_of_most() -> None:
    assert detect_row_type(sample(QA, CHAT, PAIR, {"oops": 1})) is RowType.MESSAGES
    assert detect_row_type(sample(PAIR, PAIR, CHAT)) is RowType.PREFERENCE
    with pytest.raises(
        BadData, match="the first rows are 1 messages and 1 preference rows; a data folder holds one type"
    ):
        detect_row_type(sample(QA, PAIR))
    with pytest.raises(BadData, match="no known format has these columns: oops"):
        detect_row_type(sample({"oops": 1}))
