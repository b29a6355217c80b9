from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData
from ftcli.data.chat import stop_token_ids
from ftcli.models.load import load_tokenizer
from ftcli.stages.reward.pairs import Encoded, encode_pairs


def row(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    def say(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    asked = [{"role": "user", "content": prompt}]
    return {"id": prompt, "prompt": asked, "chosen": say(chosen), "rejected": say(rejected), "meta": {}}


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


def encode(tokenizer: Any, rows: list[dict[str, Any]], max_length: int = 200, overlong: Any = "truncate") -> Encoded:
    return encode_pairs(tokenizer, rows, stop_token_ids(tokenizer), max_length, overlong)


def test_pairs_of_one_prompt_share_their_answers(tokenizer: Any) -> None:
    rows = [row("What?", "the cat", "a mat"), row("Who?", "file", "list"), row("What?", "the cat", "given")]
    found = encode(tokenizer, rows)
    assert [len(one.exchanges) for one in found.comparisons] == [3, 2]
    assert found.comparisons[0].pairs == [(0, 1), (0, 2)]
    assert (found.pairs, found.identical, found.repeated, found.overlong) == (3, 0, 0, 0)
    texts = [tokenizer.decode(one.response) for one in found.comparisons[0].exchanges]
    assert texts == ["the cat<|im_end|>", "a mat<|im_end|>", "given<|im_end|>"]
    assert tokenizer.decode(found.comparisons[0].exchanges[0].prompt).endswith("<|im_start|>assistant\n")


def test_identical_and_repeated_pairs_are_counted_out(tokenizer: Any) -> None:
    found = encode(tokenizer, [row("a", "x", "x"), row("a", "x", "y"), row("a", "x", "y"), row("a", "y", "x")])
    assert (found.pairs, found.identical, found.repeated) == (2, 1, 1)
    assert found.comparisons[0].pairs == [(0, 1), (1, 0)]


def test_a_long_prompt_loses_its_beginning_alike_for_all_its_answers(tokenizer: Any) -> None:
    rows = [row("the cat " * 30, "file", "the list of files is here"), row("Who?", "file", "list")]
    found = encode(tokenizer, rows, max_length=40)
    first, second = found.comparisons[0].exchanges
    assert first.prompt == second.prompt
    assert max(len(first), len(second)) == 40
    assert tokenizer.decode(first.prompt).endswith("<|im_start|>assistant\n")
    assert (found.pairs, found.truncated_prompts, found.overlong) == (2, 1, 0)


def test_overlong_pairs_are_left_out_and_counted_when_asked(tokenizer: Any) -> None:
    rows = [row("the cat " * 30, "file", "list"), row("Who?", "file", "list")]
    found = encode(tokenizer, rows, max_length=40, overlong="reject")
    assert (found.pairs, found.truncated_prompts, found.overlong) == (1, 0, 1)


def test_an_answer_that_fills_the_length_is_left_out_in_either_case(tokenizer: Any) -> None:
    rows = [row("Who?", "file", "the list " * 40), row("Who?", "file", "list")]
    found = encode(tokenizer, rows, max_length=40)
    assert (found.pairs, found.overlong) == (1, 1)
    assert len(found.comparisons[0].exchanges) == 2


def test_every_row_is_accounted_for(tokenizer: Any) -> None:
    rows = [row("a", "x", "x"), row("a", "x", "y"), row("a", "x", "y"), row("b", "x", "the list " * 40)]
    found = encode(tokenizer, rows, max_length=40)
    assert found.pairs + found.identical + found.repeated + found.overlong == len(rows)


def test_a_row_that_the_template_refuses_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(BadData, match=r"row Who.*roles must alternate"):
        encode(tokenizer, [row("Who?", "file", "list")])
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(BadData, match="row Who"):
        encode(tokenizer, [row("Who?", "file", "list")])
