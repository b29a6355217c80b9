"""Token counts agree with what training would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, processors
from transformers import AutoTokenizer

from ftcli.core.errors import BadData
from ftcli.data.chat import render_answer, render_messages, render_prompt, stop_token_ids
from ftcli.data.lengths import Length, characters, measure, truncated
from ftcli.data.records import Reason, Refused
from ftcli.data.texts import answer_text, prompt_text
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
    assert list(measure(rows, tokenizer, stop)) == expected


def test_a_token_that_would_cross_into_an_answer_is_counted_as_chat_cuts_it(tiny_model: Path) -> None:
    greedy = AutoTokenizer.from_pretrained(tiny_model)
    greedy.add_tokens(["\n\n"])
    stop = stop_token_ids(greedy)
    row = chat("what?", "\nthe cat", "and?", "a mat")
    rendered = render_messages(greedy, row["messages"], stop)
    assert list(measure([row], greedy, stop)) == [Length(len(rendered.input_ids), sum(rendered.loss_mask))]
    pair = {**preference_row(0), "chosen": [{"role": "assistant", "content": "\n" + "the " * 20}]}
    prompt, answer = render_answer(greedy, pair["prompt"], pair["chosen"][0]["content"], stop)
    assert list(measure([pair], greedy, stop)) == [Length(len(prompt) + len(answer), len(answer))]


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
    assert list(measure([row], tokenizer, stop)) == [Length(len(whole.input_ids), len(whole.input_ids) - len(prompt))]


def test_a_prompt_has_nothing_to_train_and_a_text_is_all_trained(tokenizer: Any) -> None:
    stop = stop_token_ids(tokenizer)
    prompt = [{"role": "user", "content": "the cat"}]
    asked = len(render_prompt(tokenizer, prompt))
    assert list(measure([{"prompt": prompt}], tokenizer, stop)) == [Length(asked, 0)]
    ids = tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
    assert list(measure([{"text": "the cat sat"}], tokenizer, stop)) == [Length(len(ids), len(ids))]


def test_without_rows_there_are_no_lengths(tokenizer: Any) -> None:
    assert list(measure([], tokenizer, frozenset({2}))) == []


def test_a_model_without_chat_template_is_refused(tiny_model: Path) -> None:
    bare = AutoTokenizer.from_pretrained(tiny_model)
    bare.chat_template = None
    with pytest.raises(BadData, match="no chat template"):
        list(measure([chat("a", "b")], bare, frozenset({2})))


def test_a_template_that_never_stops_is_refused(tokenizer: Any) -> None:
    with pytest.raises(BadData, match="does not end the assistant's turn"):
        list(measure([chat("a", "b")], tokenizer, frozenset({399})))


def test_a_row_that_the_template_refuses_is_named(tiny_model: Path) -> None:
    strict = AutoTokenizer.from_pretrained(tiny_model)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + strict.chat_template
    )
    rows = [messages_row(1), chat("a", "b")]
    with pytest.raises(BadData, match="f:1: the model's chat template refuses the row: no system role"):
        list(measure(rows, strict, stop_token_ids(strict)))


def test_of_rows_measured_together_the_first_that_is_refused_is_named(tiny_model: Path) -> None:
    strict = AutoTokenizer.from_pretrained(tiny_model)
    strict.chat_template = (
        "{% if messages[1]['content'] == 'no' %}{{ raise_exception('rather not') }}{% endif %}" + strict.chat_template
    )
    rows = [{**chat("a", "b"), "meta": {"file": "f", "line": line}} for line in range(1, 9)]
    refused = {**chat("no", "b"), "meta": {"file": "f", "line": 5}}
    tools: dict[str, Any] = {**rows[6], "tools": [{"type": "function", "function": {"name": "left_out"}}]}
    with pytest.raises(BadData, match="f:5: the model's chat template refuses the row: rather not"):
        list(measure([*rows[:4], refused, rows[5], tools, rows[7]], strict, stop_token_ids(strict)))
    with pytest.raises(BadData, match="f:7: the model's chat template leaves out"):
        list(measure([*rows[:6], tools, refused], strict, stop_token_ids(strict)))


def test_a_template_that_rewrites_an_earlier_turn_is_refused_with_the_row(tiny_model: Path) -> None:
    rewriting = AutoTokenizer.from_pretrained(tiny_model)
    rewriting.chat_template = rewriting.chat_template.replace(
        "message['content']", "(message['content'] if loop.last else message['content'].split('</think>')[-1])"
    )
    thoughtful = {**chat("a", "<think>so</think>b", "c", "d"), "meta": {"file": "f", "line": 2}}
    with pytest.raises(BadData, match="f:2: the chat template renders the first 3 messages differently"):
        list(measure([chat("a", "b"), thoughtful], rewriting, stop_token_ids(rewriting)))


def test_rows_of_all_types_count_together_as_each_alone(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% if tools %}{{ tools | tojson }}{% endif %}" + tokenizer.chat_template
    history = chat("what?", "été 😀", "and then?", "猫在垫子上")["messages"]
    rows = [
        chat("what?", "a list"),
        {"text": "the cat sat<|im_end|>"},
        {"prompt": history[:4]},
        {"messages": history},
        {"messages": history, "tools": [{"type": "function", "function": {"name": "look"}}]},
        {**preference_row(0), "prompt": history[:2]},
        {"prompt": history[:4], "completion": [{"role": "assistant", "content": "बिल्ली"}], "label": True},
        {"text": ""},
        {"prompt": history[:2], "candidates": [{"content": text, "rank": 1} for text in ("a", " the cat", "\n\n")]},
        chat("<|im_start|>", "", "\n", " \u200b"),
    ]
    stop = stop_token_ids(tokenizer)
    assert list(measure(rows, tokenizer, stop)) == [next(measure([row], tokenizer, stop)) for row in rows]


@pytest.mark.parametrize("takes_space", [False, True])
def test_what_all_rows_begin_with_counts_in_each(tiny_model: Path, takes_space: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    marks = [AddedToken(text, special=True, lstrip=takes_space) for text in ("<|im_start|>", "<|im_end|>")]
    tokenizer.backend_tokenizer.add_special_tokens(marks)
    rows = [chat("what?", "a list"), chat("the cat", "été 😀", "and then?", "the file"), chat("what?", "a mat")]
    stop = stop_token_ids(tokenizer)
    rendered = [render_messages(tokenizer, row["messages"], stop) for row in rows]
    expected = [Length(len(item.input_ids), sum(item.loss_mask)) for item in rendered]
    ids = rendered[0].input_ids
    assert (ids[ids.index(2) + 1] == 1) is takes_space  # the line break between two turns
    assert list(measure(rows, tokenizer, stop)) == expected


@pytest.mark.parametrize("before", [":", ": "])
def test_a_tokenizer_whose_offsets_leave_out_spaces_counts_as_chat_does(tiny_model: Path, before: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant" + before + "' }}{% endif %}"
    )
    rows, stop = [chat("what?", "the cat"), chat("what?", "  a mat"), messages_row(1)], stop_token_ids(tokenizer)
    rendered = [render_messages(tokenizer, row["messages"], stop) for row in rows]
    expected = [Length(len(item.input_ids), sum(item.loss_mask)) for item in rendered]
    assert list(measure(rows, tokenizer, stop)) == expected


def test_characters_of_all_and_of_the_answer() -> None:
    for row, length in (
        (chat("four", "three"), Length(4 + 5, 5)),  # system messages are no part of it
        ({"text": "abc"}, Length(3, 3)),
        ({"prompt": [{"role": "user", "content": "ab"}]}, Length(2, 0)),
    ):
        assert characters(prompt_text(row), answer_text(row)) == length


def test_rankings_and_unpaired_rows_count_their_longest_answer(tokenizer: Any) -> None:
    stop = stop_token_ids(tokenizer)
    prompt = [{"role": "user", "content": "the cat"}]
    answers = ["a", "the cat sat on a mat"]
    expected = [render_answer(tokenizer, prompt, answer, stop) for answer in answers]
    lengths = [Length(len(asked) + len(said), len(said)) for asked, said in expected]
    ranking = {"prompt": prompt, "candidates": [{"content": text, "rank": 1} for text in answers]}
    unpaired = {"prompt": prompt, "completion": [{"role": "assistant", "content": answers[1]}], "label": True}
    assert list(measure([ranking, unpaired], tokenizer, stop)) == [lengths[1], lengths[1]]


def test_a_tokenizer_without_offsets_counts_the_same(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, stop = [chat("what?", "a list", "and?", "the file"), messages_row(2)], stop_token_ids(tokenizer)
    expected = list(measure(rows, tokenizer, stop))
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    assert list(measure(rows, tokenizer, stop)) == expected


@pytest.mark.parametrize("limit", [30, 45, 60])
def test_a_cut_row_has_as_many_tokens_as_allowed_and_begins_as_before(tokenizer: Any, limit: int) -> None:
    stop = stop_token_ids(tokenizer)
    row = chat("what?", "the cat sat on a mat " * 20)
    shorter, length = truncated(row, tokenizer, stop, limit)
    rendered = render_messages(tokenizer, shorter["messages"], stop)
    assert length == Length(len(rendered.input_ids), sum(rendered.loss_mask))
    assert limit - 3 <= length.total <= limit
    assert row["messages"][-1]["content"].startswith(shorter["messages"][-1]["content"])
    assert rendered.input_ids[-1] in stop


def test_a_row_that_fits_stays_as_it_is(tokenizer: Any) -> None:
    row = chat("what?", "a list")
    assert truncated(row, tokenizer, stop_token_ids(tokenizer), 500)[0] is row


@pytest.mark.parametrize(
    "row",
    [
        chat("the cat sat on a mat " * 20, "a list"),
        {"prompt": [{"role": "user", "content": "the cat sat on a mat " * 20}], "meta": {"file": "f", "line": 1}},
    ],
)
def test_a_row_of_which_no_answer_would_be_left_is_refused(tokenizer: Any, row: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        truncated(row, tokenizer, stop_token_ids(tokenizer), 20)
    assert caught.value.reason is Reason.NO_TRAINABLE_TOKENS


def test_pairs_and_texts_can_be_cut(tokenizer: Any) -> None:
    stop = stop_token_ids(tokenizer)
    pair = {**preference_row(0), "chosen": [{"role": "assistant", "content": "the cat sat on a mat " * 10}]}
    pair["rejected"] = [{"role": "assistant", "content": "a list of files and more of it " * 10}]
    text = {"text": "the cat sat on a mat " * 10}
    for row in (pair, text):
        assert truncated(row, tokenizer, stop, 40)[1].total <= 40
