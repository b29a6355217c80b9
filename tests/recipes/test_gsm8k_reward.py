"""The reward of ppo-function-reward.yaml: numbers as models write them, and real answers."""

from __future__ import annotations

import importlib.util
import json
import os
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "recipes" / "rewards" / "gsm8k.py"
REAL = Path(os.environ.get("FTCLI_TEST_DATA", "")) / "gsm8k_train.json"


def load() -> ModuleType:
    """As `ftcli` does: from the file, which is in no package."""
    spec = importlib.util.spec_from_file_location("gsm8k", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gsm8k = load()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 48/2 = 24 clips.\n#### 72", "72"),
        ("#### 1,234,567", "1234567"),
        ("#### $5.50 a day, 3 days", "5.50"),
        ("#### 3\nNo, wait.\n#### 4", "4"),
        ("####", None),
        ("it is 7 ####", "7"),
        (r"so \boxed{42}", "42"),
        (r"$$\boxed{\$1{,}200 \text{ dollars}}$$ for 3 weeks", "1200"),
        (r"\boxed{12\,000}", "12000"),
        (r"first \boxed{1}, then \boxed{x = 2}, in 5 steps", "2"),
        (r"\boxed{many} of 6", "6"),
        ("The answer is 18.", "18"),
        ("**Answer:** _42_", "42"),
        ("30-15=15 and 30-16", "16"),
        ("it fell to -5 degrees", "-5"),
        ("that is \u22123", "-3"),
        ("she lost -$20", "-20"),
        ("0.5 of it", "0.5"),
        ("or .25", "0.25"),
        ("10,20,30", "30"),
        ("60% of them weigh 12kg", "12"),
        ("version v2.1", None),
        ("none at all", None),
        ("", None),
    ],
)
def test_the_final_number_is_found_as_a_reader_would(text: str, number: str | None) -> None:
    assert gsm8k.final_number(text) == (None if number is None else Decimal(number))


def test_equal_numbers_score_one_however_they_are_written() -> None:
    completions = ["It is 72.0 clips", r"\boxed{1,000}", "#### 1000", "#### 999", "no idea"]
    answer = ["#### 72", "#### 1000", "1,000 dollars", "#### 1000", "#### 5"]
    assert gsm8k.accuracy(completions, answer=answer) == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_completions_are_texts_or_messages_and_the_right_answer_may_be_called_reference() -> None:
    completions = [[{"role": "assistant", "content": "two is 2"}], [{"role": "assistant", "content": None}], "2"]
    prompts = [[{"role": "user", "content": "1 + 1?"}]] * 3
    assert gsm8k.accuracy(completions=completions, prompts=prompts, reference=["#### 2"] * 3, id=[1, 2, 3]) == [1, 0, 1]


def test_a_row_whose_right_answer_has_no_number_is_left_out() -> None:
    assert gsm8k.accuracy(["5", "5"], answer=["five", "#### 5"]) == [None, 1.0]
    assert gsm8k.accuracy(["5"], reference=[None]) == [None]


def test_columns_that_are_missing_or_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        gsm8k.accuracy(["1", "2"], answer=["1"])
    with pytest.raises(ValueError, match="neither a reference answer nor a column answer"):
        gsm8k.accuracy(["1"])


@pytest.mark.skipif(not REAL.is_file(), reason="FTCLI_TEST_DATA names no folder with gsm8k_train.json")
def test_real_answers() -> None:
    rows = json.loads(REAL.read_text(encoding="utf-8"))
    answers = [row["output"] for row in rows]
    # Read off the questions by hand.
    by_hand = ["72", "10", "5", "42", "624", "35", "48", "16", "41", "990"]
    assert gsm8k.accuracy([f"The result: {number}." for number in by_hand], answer=answers[:10]) == [1.0] * 10
    assert gsm8k.accuracy([f"{int(number) + 1}" for number in by_hand], answer=answers[:10]) == [0.0] * 10
    assert gsm8k.accuracy(answers, answer=answers).count(1.0) >= 0.99 * len(answers)
