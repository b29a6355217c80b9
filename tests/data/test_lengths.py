"""Token counts agree with what training would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ftcli.core.errors import BadData
from ftcli.data.chat import render_answer, render_messages, render_prompt, stop_token_ids
from ftcli.data.lengths import Length, characters, count_tokens, describe, drop_long
from ftcli.data.records import Reject
from tests.tiny import messages_row, preference_row


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def chat(*texts: str) -> dict[str, Any]:
    turns = [{"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(texts)]
    return {"messages": [{"role": "system", "content": "the cat"}, *turns], "meta": {"file": "f", "line": 1}}


def test_counts_equal_what_chat_renders(tokenizer: Any) -> None:
    rows = [messages_row(1), chat("what?", "a list"), chat("what?", "été 😀", "and then?", "the file\n\nx")]
    stop = stop_token_ids(tokenizer)
    rendered = [render_messages(tokenizer, row["messages"], stop) for row in rows]
    expected = [Length(len(item.input_ids), sum(item.loss_mask)) for item in rendered]
    assert list(count_tokens(rows, tokenizer, stop)) == expected


def test_a_token_that_would_cross_into_an_answer_is_counted_as_chat_cuts_it(tiny_model: Path) -> None:
    greedy = AutoTokenizer.from_pretrained(tiny_model)
    greedy.add_tokens(["\n\n"])
    stop = stop_token_ids(greedy)
    row = chat("what?", "\nthe cat", "and?", "a mat")
    rendered = render_messages(greedy, row["messages"], stop)
    assert list(count_tokens([row], greedy, stop)) == [Length(len(rendered.input_ids), sum(rendered.loss_mask))]
    pair = {**preference_row(0), "chosen": [{"role": "assistant", "content": "\n" + "the " * 20}]}
    prompt, answer = render_answer(greedy, pair["prompt"], pair["chosen"][0]["content"], stop)
    assert list(count_tokens([pair], greedy, stop)) == [Length(len(prompt) + len(answer), len(answer))]


def test_a_pair_counts_as_its_longer_side_and_its_answer_alone(tokenizer: Any) -> None:
    stop = stop_token_ids(tokenizer)
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    row: dict[str, Any] = {**preference_row(0), "prompt": history, "chosen": [{"role": "assistant", "content": "x"}]}
    whole = render_messages(tokenizer, [*history, *row["rejected"]], stop)
    prompt = render_prompt(tokenizer, history)
    assert list(count_tokens([row], tokenizer, stop)) == [
        Length(len(whole.input_ids), len(whole.input_ids) - len(prompt))
    ]


def test_a_prompt_has_nothing_to_train_and_a_text_is_all_trained(tokenizer: Any) -> None:
    stop = stop_token_ids(tokenizer)
    prompt = [{"role": "user", "content": "the cat"}]
    asked = len(render_prompt(tokenizer, prompt))
    assert list(count_tokens([{"prompt": prompt}], tokenizer, stop)) == [Length(asked, 0)]
    ids = tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
    assert list(count_tokens([{"text": "the cat sat"}], tokenizer, stop)) == [Length(len(ids), len(ids))]


def test_without_rows_there_are_no_lengths(tokenizer: Any) -> None:
    assert list(count_tokens([], tokenizer, frozenset({2}))) == []


def test_a_model_without_chat_template_is_refused(tiny_model: Path) -> None:
    bare = AutoTokenizer.from_pretrained(tiny_model)
    bare.chat_template = None
    with pytest.raises(BadData, match="no chat template"):
        list(count_tokens([chat("a", "b")], bare, frozenset({2})))


def test_a_template_that_never_stops_is_refused(tokenizer: Any) -> None:
    with pytest.raises(BadData, match="does not end the assistant's turn"):
        list(count_tokens([chat("a", "b")], tokenizer, frozenset({399})))


def test_a_row_that_the_template_refuses_is_named(tiny_model: Path) -> None:
    strict = AutoTokenizer.from_pretrained(tiny_model)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + strict.chat_template
    )
    rows = [messages_row(1), chat("a", "b")]
    with pytest.raises(BadData, match="f:1: the model's chat template refuses the row: no system role"):
        list(count_tokens(rows, strict, stop_token_ids(strict)))


def test_percentiles_are_nearest_ranks() -> None:
    # 1..20: the median by nearest rank is the 10th value, the 95th percentile the 19th
    assert describe(range(20, 0, -1)) == {"mean": 10.5, "p50": 10, "p95": 19, "max": 20}
    assert describe([7]) == {"mean": 7, "p50": 7, "p95": 7, "max": 7}
    assert describe([]) == {"mean": 0, "p50": 0, "p95": 0, "max": 0}


def test_characters_of_prompt_and_answer() -> None:
    assert characters(chat("four", "three")) == (7 + 4, 5)
    assert characters({"text": "abc"}) == (0, 3)
    assert characters({"prompt": [{"role": "user", "content": "ab"}]}) == (2, 0)


def test_long_rows_are_refused_with_their_length() -> None:
    short, long = chat("a", "b"), chat("c", "d")
    kept, refused = drop_long([short, long], [Length(5, 2), Length(6, 2)], 5)
    assert kept == short
    assert isinstance(refused, Reject)
    assert (refused.reason, refused.detail) == ("too_long", "6 tokens, at most 5 wanted")
