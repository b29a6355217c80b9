from __future__ import annotations

from typing import Any

import pytest

from ftcli.data.reward_columns import reward_columns

ASK = [{"role": "user", "content": "2 + 3?"}]
FIVE, SIX = ({"role": "assistant", "content": text} for text in ("5", "6"))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (
            {"id": "a", "messages": [*ASK, FIVE], "meta": {"file": "x", "level": 2}},
            {"messages": [*ASK, FIVE], "reference": "5", "file": "x", "level": 2},
        ),
        ({"id": "a", "prompt": ASK, "meta": {"answer": "5"}}, {"reference": None, "answer": "5"}),
        ({"id": "a", "prompt": ASK}, {"reference": None}),
        (
            {"id": "a", "prompt": ASK, "chosen": [FIVE], "rejected": [SIX], "meta": {}},
            {"reference": "5", "chosen": [FIVE], "rejected": [SIX]},
        ),
        ({"id": "a", "prompt": ASK, "tools": [{}], "meta": {}}, {"reference": None, "tools": [{}]}),
        (
            {"id": "a", "prompt": ASK, "completion": [FIVE], "label": True, "meta": {}},
            {"reference": "5", "label": True},
        ),
    ],
)
def test_a_rows_columns_are_its_own_those_of_meta_and_the_reference(
    row: dict[str, Any], columns: dict[str, Any]
) -> None:
    assert reward_columns(row) == {"id": "a", "prompt": ASK, **columns}


def test_a_reference_of_the_users_own_goes_before_the_answer() -> None:
    row = {"id": "a", "messages": [*ASK, FIVE], "meta": {"reference": "five"}}
    assert reward_columns(row)["reference"] == "five"


def test_a_column_never_hides_the_prompt_or_the_models_answer() -> None:
    names = ("prompt", "prompts", "completion", "completions", "completion_ids", "id", "messages")
    row = {"id": "a", "messages": [*ASK, FIVE], "meta": dict.fromkeys(names, "x")}
    assert reward_columns(row) == {"id": "a", "prompt": ASK, "messages": [*ASK, FIVE], "reference": "5"}
