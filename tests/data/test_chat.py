from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftcli.core.errors import BadData
from ftcli.data.chat import (
    TemplateFault,
    generation_eos,
    render_answer,
    render_messages,
    render_prompt,
    row_name,
    stop_token_ids,
)

STOP = "<|im_end|>"
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1] if not loop.last else m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def melting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer that, like SmolLM2's, has tokens of several line breaks."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.tiny import CHAT_TEMPLATE

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, "ĊĊ", "ĊĊĊ", "ok"])}
    raw = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ"), ("ĊĊ", "Ċ"), ("o", "k")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", STOP)])
    found = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=STOP)
    found.chat_template = CHAT_TEMPLATE
    return found


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def stops(tokenizer: Any) -> frozenset[int]:
    return stop_token_ids(tokenizer)


def trained(tokenizer: Any, rendered: Any) -> str:
    """The text that is trained on."""
    chosen = [token for token, counts in zip(rendered.input_ids, rendered.loss_mask, strict=True) if counts]
    return str(tokenizer.decode(chosen))


def test_the_prompt_ends_where_the_answer_begins(tokenizer: Any) -> None:
    ids = render_prompt(tokenizer, [turn("user", "What is a list?")])
    assert tokenizer.decode(ids) == "<|im_start|>user\nWhat is a list?<|im_end|>\n<|im_start|>assistant\n"


def test_an_answer_ends_with_its_end_of_turn_token_and_nothing_after_it(tokenizer: Any) -> None:
    prompt, answer = render_answer(tokenizer, [turn("user", "Q")], "the cat", stops(tokenizer))
    assert prompt == render_prompt(tokenizer, [turn("user", "Q")])
    assert tokenizer.decode(answer) == "the cat<|im_end|>"
    assert answer[-1] == tokenizer.eos_token_id


def test_an_empty_answer_is_its_end_of_turn_token(tokenizer: Any) -> None:
    assert render_answer(tokenizer, [turn("user", "Q")], "", stops(tokenizer))[1] == [tokenizer.eos_token_id]


def test_every_assistant_turn_is_trained_through_its_end_and_nothing_else(tokenizer: Any) -> None:
    messages = [
        turn("system", "Be short."),
        turn("user", "One?"),
        turn("assistant", "First."),
        turn("user", "Two?"),
        turn("assistant", "Second."),
    ]
    rendered = render_messages(tokenizer, messages, stops(tokenizer))
    assert trained(tokenizer, rendered) == "First.<|im_end|>Second.<|im_end|>"
    text = tokenizer.decode(rendered.input_ids)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == whole.removesuffix("\n"), "without the line break that the template adds"
    assert len(rendered.input_ids) == len(rendered.loss_mask)


def test_the_padding_token_does_not_decide_what_is_trained(tokenizer: Any) -> None:
    """It is the end-of-turn token here, as in many models."""
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rendered = render_messages(tokenizer, [turn("user", "Q"), turn("assistant", "A")], stops(tokenizer))
    assert rendered.loss_mask[-1]
    assert rendered.input_ids.count(tokenizer.eos_token_id) == 2
    assert sum(rendered.loss_mask) == len(render_answer(tokenizer, [turn("user", "Q")], "A", stops(tokenizer))[1])


@pytest.mark.parametrize("answer", ["\nok", "\n\nok", "\n\n", "ok\n", "\n\nok\n\n", " ok"])
def test_no_token_crosses_from_the_prompt_into_the_answer(melting: Any, answer: str) -> None:
    prompt = [turn("user", "Q")]
    whole = melting.apply_chat_template([*prompt, turn("assistant", answer)], tokenize=True, return_dict=False)
    alone = render_prompt(melting, prompt)
    if answer.startswith("\n\n"):
        assert whole[: len(alone)] != alone, "this tokenizer would melt them together"
    start, rest = render_answer(melting, prompt, answer, stops(melting))
    assert start == alone, "what generation sees"
    assert melting.decode(rest) == f"{answer}<|im_end|>"
    rendered = render_messages(melting, [*prompt, turn("assistant", answer)], stops(melting))
    assert trained(melting, rendered) == f"{answer}<|im_end|>"


def test_a_later_prompt_has_the_tokens_that_were_trained(melting: Any) -> None:
    messages = [turn("user", "Q"), turn("assistant", "\n\nok"), turn("user", "R"), turn("assistant", "\nok")]
    rendered = render_messages(melting, messages, stops(melting))
    prompt = render_prompt(melting, messages[:3])
    assert rendered.input_ids[: len(prompt)] == prompt
    assert render_answer(melting, messages[:3], "\nok", stops(melting)) == (prompt, rendered.input_ids[len(prompt) :])


texts = st.text(st.sampled_from("ab \n<>|é数🙂"), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
def test_prompt_and_answer_together_are_the_conversation_that_is_trained(
    tokenizer: Any, turns: list[tuple[str, str]]
) -> None:
    messages = [message for ask, answer in turns for message in (turn("user", ask), turn("assistant", answer))]
    rendered = render_messages(tokenizer, messages, stops(tokenizer))
    prompt, answer = render_answer(tokenizer, messages[:-1], messages[-1]["content"], stops(tokenizer))
    assert rendered.input_ids == prompt + answer
    assert rendered.loss_mask[len(prompt) :] == [True] * len(answer)
    assert trained(tokenizer, rendered) == "".join(f"{answer}<|im_end|>" for _, answer in turns)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any) -> None:
    import copy

    rewriting = copy.deepcopy(tokenizer)
    rewriting.chat_template = THINKING
    single = [turn("user", "Q"), turn("assistant", "<think>hm</think>A")]
    assert trained(rewriting, render_messages(rewriting, single, stops(rewriting))).endswith("A<|im_end|>")
    with pytest.raises(BadData, match="renders the first 2 messages differently once more follow"):
        render_messages(rewriting, [*single, turn("user", "R"), turn("assistant", "B")], stops(rewriting))


def test_a_template_without_end_of_turn_is_refused(tokenizer: Any) -> None:
    import copy

    endless = copy.deepcopy(tokenizer)
    endless.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(BadData, match="does not end the assistant's turn") as caught:
        render_messages(endless, [turn("user", "Q"), turn("assistant", "A")], stops(endless))
    assert "eos_token" in caught.value.hint


def test_messages_that_a_template_refuses_are_bad_data(tokenizer: Any) -> None:
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(BadData, match="the model's chat template refuses the messages: System role not supported"):
        render_prompt(strict, [turn("system", "S"), turn("user", "Q")])


def test_a_model_without_chat_template_or_end_token_is_refused(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(BadData, match="no chat template"):
        render_prompt(bare, [turn("user", "Q")])
    bare.eos_token = None
    with pytest.raises(BadData, match="no end-of-sequence token"):
        stop_token_ids(bare)
    assert stop_token_ids(bare, 7) == {7}


def test_stop_ids_are_those_of_tokenizer_and_generation_config(tokenizer: Any) -> None:
    own = tokenizer.eos_token_id
    assert stop_token_ids(tokenizer) == {own}
    assert stop_token_ids(tokenizer, 5) == {own, 5}
    assert stop_token_ids(tokenizer, [5, 6]) == {own, 5, 6}


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("", "no_chat_template"),
        ("{{ raise_exception('no') }}", "refused"),
        ("{{ messages[0]['content'] + 1 }}", "refused"),
        ("{{ 1 / 0 }}", "refused"),
        ("{{ messages[9]['content'] }}", "refused"),
        ("{{ messages[0].nothing.content }}", "refused"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "missing_end_of_turn"),
        (
            "{% if add_generation_prompt %}x{% endif %}{% for m in messages %}{{ m['content'] }}{% endfor %}<|im_end|>",
            "generation_prompt_differs",
        ),
        (THINKING, "rewrites_history"),
    ],
)
def test_a_template_at_fault_is_told_by_name(tokenizer: Any, template: str, name: str) -> None:
    import copy

    faulty = copy.deepcopy(tokenizer)
    faulty.chat_template = template
    answer = turn("assistant", "<think>hm</think>A")
    with pytest.raises(TemplateFault) as caught:
        render_messages(faulty, [turn("user", "Q"), answer, turn("user", "R"), answer], stops(tokenizer))
    assert caught.value.name == name
    assert caught.value.hint


def test_the_ids_that_stop_generation_are_read_without_the_weights(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    config = tmp_path / "generation_config.json"
    config.write_text('{"eos_token_id": [2, 7]}')
    assert generation_eos(tmp_path) == [2, 7]
    config.write_text("{}")
    assert generation_eos(tmp_path) is None
    config.unlink()
    assert generation_eos(tmp_path) == 2, "that of config.json, as in a loaded model"


def test_a_row_is_called_by_its_id_or_its_place() -> None:
    assert row_name({"id": "r7", "meta": {"file": "a.jsonl", "line": 3}}) == "row r7"
    assert row_name({"messages": [], "meta": {"file": "a.jsonl", "line": 3}}) == "row a.jsonl:3"
    assert row_name({"messages": []}) == "row ?"


TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "time", "parameters": {}}},
]
OFFERED = "{% for t in tools %}<{{ t.function.name }}>{% endfor %}"
SAID = "{{ m.content }}"
CALLED = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
ANSWERED = "{{ m.content }}"


def with_template(tokenizer: Any, offered: str, said: str, called: str, answered: str) -> Any:
    """A tokenizer whose template writes tools, texts, calls and what tools answered by these four parts."""
    import copy

    found = copy.deepcopy(tokenizer)
    found.chat_template = (
        "{% if tools %}<|im_start|>system\n" + offered + "<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'tool' %}"
        + answered
        + "{% elif m.tool_calls %}"
        + said
        + called
        + "{% else %}{{ m.content }}{% endif %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return found


def called(content: str = "", **arguments: Any) -> dict[str, Any]:
    import json

    function = {"name": "weather", "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": content, "tool_calls": [{"type": "function", "function": function}]}


ASKED = [turn("user", "Rome?"), called("Let me see.", city="Rome"), turn("tool", "18 C"), turn("assistant", "Mild.")]


def test_calls_are_rendered_with_their_arguments_and_trained_on(tokenizer: Any) -> None:
    """Expected text written by hand from the template's four parts."""
    knowing = with_template(tokenizer, OFFERED, SAID, CALLED, ANSWERED)
    rendered = render_messages(knowing, ASKED, stops(knowing), tools=TOOLS)
    call = 'Let me see.<call>weather {"city": "Rome"}<|im_end|>'
    assert knowing.decode(rendered.input_ids) == (
        "<|im_start|>system\n<weather><time><|im_end|>\n<|im_start|>user\nRome?<|im_end|>\n<|im_start|>assistant\n"
        + call
        + "\n<|im_start|>tool\n18 C<|im_end|>\n<|im_start|>assistant\nMild.<|im_end|>"
    )
    assert trained(knowing, rendered) == call + "Mild.<|im_end|>"
    prompt, answer = render_answer(knowing, ASKED[:3], "Mild.", stops(knowing), tools=TOOLS)
    assert prompt + answer == rendered.input_ids
    assert render_prompt(knowing, ASKED[:3], tools=TOOLS) == prompt
    assert ASKED[1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}', "the row is not changed"


def test_a_conversation_may_end_with_a_call(tokenizer: Any) -> None:
    knowing = with_template(tokenizer, OFFERED, SAID, CALLED, ANSWERED)
    rendered = render_messages(knowing, [turn("user", "Rome?"), called(city="Rome")], stops(knowing))
    assert trained(knowing, rendered) == '<call>weather {"city": "Rome"}<|im_end|>'


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        (("", SAID, CALLED, ANSWERED), "the tool weather"),
        (("<weather>", SAID, CALLED, ANSWERED), "the tool weather"),
        ((OFFERED, SAID, "", ANSWERED), "the call of weather"),
        ((OFFERED, SAID, "weather", ANSWERED), "the call of weather"),
        ((OFFERED, "", CALLED, ANSWERED), "the text beside a tool call"),
        ((OFFERED, SAID, CALLED, ""), "what a tool answered"),
    ],
)
def test_a_template_that_leaves_out_tools_is_refused(
    tokenizer: Any, parts: tuple[str, str, str, str], what: str
) -> None:
    """Although each of them renders the row without a word."""
    silent = with_template(tokenizer, *parts)
    assert silent.apply_chat_template(ASKED, tools=TOOLS, tokenize=False)
    for render in (
        lambda: render_messages(silent, ASKED, stops(silent), tools=TOOLS),
        lambda: render_prompt(silent, ASKED[:3], tools=TOOLS),
        lambda: render_answer(silent, ASKED[:3], "Mild.", stops(silent), tools=TOOLS),
    ):
        with pytest.raises(BadData, match=f"the model's chat template leaves out {what}") as caught:
            render()
        assert "use a model whose template knows tools" in caught.value.hint


def test_tools_that_nobody_calls_must_be_rendered_too(tokenizer: Any) -> None:
    plain = [turn("user", "Q"), turn("assistant", "A")]
    with pytest.raises(BadData, match="leaves out the tool weather"):
        render_messages(tokenizer, plain, stops(tokenizer), tools=TOOLS)
    assert render_messages(tokenizer, plain, stops(tokenizer), tools=[]) == render_messages(
        tokenizer, plain, stops(tokenizer)
    )


def test_a_text_of_the_row_that_looks_like_a_call_is_none(tokenizer: Any) -> None:
    """The name of the function stands in the rendered text, and yet the call is missing."""
    messages = [turn("user", "Ask weather for Rome."), called(city="Rome")]
    assert "weather" in tokenizer.apply_chat_template(messages, tokenize=False)
    with pytest.raises(BadData, match="leaves out the call of weather"):
        render_messages(tokenizer, messages, stops(tokenizer))
