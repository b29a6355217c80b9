from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData
from ftcli.data.chat import render_messages, stop_token_ids
from ftcli.data.template_case import SAME_SHAPE_ROWS, SAMPLE_ROWS, sample
from ftcli.data.template_doctor import Finding, check_template, require_healthy

PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" + PROMPT
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Bo, a model that helps.<|im_end|>\n{% endif %}"
    + CHATML
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] if loop.index0 >= messages | length - 2 else m['content'].split('</think>')[-1].lstrip('\n') }}"
    "<|im_end|>\n{% endfor %}" + PROMPT
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def made(template: str | None, *special: str, bos: str | None = None, eos: str | None = None, **more: Any) -> Any:
    """A tokenizer of single bytes and ``special`` tokens. ``adds_bos``: it begins plain text with ``bos``, as Llama's do."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *more.get("merged", [])]
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocabulary, [tuple(word) for word in more.get("merged", [])]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    words = dict.fromkeys([*special, *(word for word in (bos, eos) if word)])
    raw.add_special_tokens([AddedToken(word, special=True) for word in words])
    if more.get("adds_bos"):
        assert bos is not None
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    found = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=bos, eos_token=eos, pad_token=more.get("pad", "<pad>")
    )
    found.chat_template = template
    return found


def chatml(template: str = CHATML, **more: Any) -> Any:
    return made(template, "<|im_start|>", eos="<|im_end|>", **more)


def llama(template: str, **more: Any) -> Any:
    return made(template, bos="<s>", eos="</s>", **more)


def llama_3(**more: Any) -> Any:
    markers = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return made(LLAMA_3, *markers, bos="<|begin_of_text|>", eos=more.pop("eos", "<|eot_id|>"), **more)


def gemma() -> Any:
    return made(GEMMA, "<start_of_turn>", bos="<bos>", eos="<end_of_turn>")


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def row(*messages: dict[str, Any], name: str = "r1") -> dict[str, Any]:
    return {"id": name, "messages": list(messages), "meta": {}}


ASKED, ANSWERED = turn("user", "What is a list?"), turn("assistant", "Several values in a row.")
SINGLE = row(ASKED, ANSWERED)
DOUBLE = row(ASKED, ANSWERED, turn("user", "And a set?"), turn("assistant", "Values without order."), name="r2")
WITH_SYSTEM = row(turn("system", "Be short."), ASKED, ANSWERED, name="r3")
THINKING = row(
    ASKED, turn("assistant", "<think>\nhm\n</think>\n\nSo."), turn("user", "Why?"), turn("assistant", "So."), name="r4"
)


def check(tokenizer: Any, *rows: dict[str, Any], eos: Any = None) -> dict[str, Finding]:
    findings = check_template(tokenizer, stop_token_ids(tokenizer, eos), rows, eos)
    names = [item.name for item in findings]
    assert len(set(names)) == len(names) or set(names) >= {"split_control_token"}
    return {item.name: item for item in findings}


def levels(found: dict[str, Finding]) -> dict[str, str]:
    return {name: item.level for name, item in found.items()}


HEALTHY = {
    "chatml": chatml(),
    "chatml, pad is eos": chatml(pad="<|im_end|>"),
    "default system prompt": chatml(WITH_DEFAULT),
    "llama 2": llama(LLAMA_2),
    "llama 2, adds bos": llama(LLAMA_2, adds_bos=True),
    "llama 3": llama_3(),
    "zephyr": made(ZEPHYR, eos="</s>", bos="<s>"),
    "qwen 3": chatml(QWEN_3),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_template_has_no_error_and_no_warning(name: str) -> None:
    found = check(HEALTHY[name], SINGLE, DOUBLE, WITH_SYSTEM)
    assert set(levels(found).values()) <= {"note"}
    require_healthy(list(found.values()))


@pytest.mark.parametrize("tokenizer", [llama(MISTRAL), gemma()], ids=["mistral", "gemma"])
def test_a_template_without_system_role_is_healthy_for_rows_without_system_message(tokenizer: Any) -> None:
    assert levels(check(tokenizer, SINGLE, DOUBLE)) == {"system_refused": "note"}


def test_plain_chatml_has_nothing_to_be_said_about() -> None:
    assert check(chatml(), SINGLE, DOUBLE, WITH_SYSTEM) == {}
    assert check(llama(LLAMA_2), SINGLE, DOUBLE, WITH_SYSTEM) == {}
    assert check(llama_3(), SINGLE, DOUBLE, WITH_SYSTEM) == {}


def test_the_tiny_model_of_the_tests_is_told_only_that_padding_is_harmless(tiny_model: Path) -> None:
    from ftcli.models.load import load_tokenizer

    assert levels(check(load_tokenizer(tiny_model), SINGLE, DOUBLE)) == {"pad_is_stop_token": "note"}


@pytest.mark.parametrize("template", [None, "", "  \n"])
def test_a_missing_or_empty_template_is_the_only_finding(template: str | None) -> None:
    found = check(chatml(template), SINGLE)  # type: ignore[arg-type]
    assert levels(found) == {"no_chat_template": "error"}
    assert "chat_template.jinja" in found["no_chat_template"].fix


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m['content'] }}", "end of 'for'|endfor"),
        ("{{ raise_exception('not for chat') }}", "not for chat"),
        ("{{ messages[0]['content'] + 1 }}", "concatenate"),
        ("{% if add_generation_prompt %}{{ raise_exception('no prompts') }}{% endif %}" + CHATML, "no prompts"),
    ],
)
def test_a_template_that_fails_as_a_program_is_told_with_its_own_words(template: str, said: str) -> None:
    import re

    found = check(chatml(template), SINGLE)
    assert levels(found) == {"template_fails": "error"}
    assert re.search(said, found["template_fails"].seen)


@pytest.mark.parametrize(
    ("template", "left_out"),
    [
        ("{# nothing #}", "user"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "user"),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}", "assistant"),
    ],
)
def test_a_template_that_leaves_out_what_was_said_is_told(template: str, left_out: str) -> None:
    found = check(chatml(template), SINGLE)
    assert levels(found) == {"content_left_out": "error"}
    assert f"the {left_out}'s message" in found["content_left_out"].seen


def test_a_template_that_writes_bos_twice_is_an_error() -> None:
    found = check(llama("{{ bos_token }}" + MISTRAL), SINGLE)
    assert found["double_bos"].level == "error"
    assert "2 beginning-of-sequence tokens <s>" in found["double_bos"].seen
    assert "chat_template.jinja" in found["double_bos"].fix


def test_bos_twice_only_with_a_system_message_is_an_error_too() -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ bos_token }}{% endif %}" + LLAMA_2
    assert "double_bos" in check(llama(template), SINGLE)


def test_bos_from_template_and_tokenizer_is_a_note_since_rows_get_one() -> None:
    tokenizer = llama(MISTRAL, adds_bos=True)
    found = check(tokenizer, SINGLE)
    assert found["bos_from_template_and_tokenizer"].level == "note"
    assert "add_special_tokens=False" in found["bos_from_template_and_tokenizer"].fix
    ids = render_messages(tokenizer, SINGLE["messages"], stop_token_ids(tokenizer)).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_template_without_the_bos_that_the_tokenizer_adds_to_text_is_warned_about() -> None:
    found = check(made(ZEPHYR, eos="</s>", bos="<s>", adds_bos=True), SINGLE)
    assert found["missing_bos"].level == "warning"
    assert "missing_bos" not in check(made(ZEPHYR, eos="</s>", bos="<s>"), SINGLE)


def test_pad_is_eos_is_a_note_and_no_pad_an_error() -> None:
    assert levels(check(chatml(pad="<|im_end|>"), SINGLE)) == {"pad_is_stop_token": "note"}
    found = check(chatml(pad=None), SINGLE)
    assert levels(found) == {"no_pad_token": "error"}
    assert '"pad_token"' in found["no_pad_token"].fix
    assert "<|im_end|>" in found["no_pad_token"].fix


def test_a_template_that_never_ends_an_answer_is_an_error() -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    found = check(chatml(template), SINGLE)
    assert levels(found) == {"missing_end_of_turn": "error"}
    assert r"'\n'" in found["missing_end_of_turn"].seen
    assert "<|im_end|>" in found["missing_end_of_turn"].seen
    assert "{{ eos_token }}" in found["missing_end_of_turn"].fix


def test_an_answer_that_ends_with_a_token_that_stops_nothing_is_an_error() -> None:
    """The usual case: a base model's eos token with a ChatML template."""
    tokenizer = made(CHATML, "<|im_start|>", "<|im_end|>", eos="<|endoftext|>")
    ends = tokenizer.convert_tokens_to_ids("<|im_end|>")
    found = check(tokenizer, SINGLE)
    assert levels(found) == {"end_of_turn_is_no_stop": "error"}
    assert f"<|im_end|> (id {ends})" in found["end_of_turn_is_no_stop"].seen
    assert "<|endoftext|>" in found["end_of_turn_is_no_stop"].seen
    assert "\"eos_token\": '<|im_end|>'" in found["end_of_turn_is_no_stop"].fix
    assert check(tokenizer, SINGLE, eos=[ends]) == {}, "the generation config stops there"


def test_a_generation_config_that_stops_elsewhere_is_warned_about() -> None:
    tokenizer = llama_3(eos="<|eot_id|>")
    text, end = (tokenizer.convert_tokens_to_ids(word) for word in ("<|begin_of_text|>", "<|eot_id|>"))
    found = check(tokenizer, SINGLE, eos=text)
    assert levels(found) == {"stop_never_trained": "warning"}
    assert f'"eos_token_id": [{text}, {end}]' in found["stop_never_trained"].fix
    assert check(tokenizer, SINGLE, eos=[text, end]) == {}


def test_a_control_token_in_pieces_that_ends_an_answer_is_an_error() -> None:
    found = check(made(CHATML, eos="</s>"), SINGLE)
    assert levels(found) == {"split_control_token": "error"}
    assert "'<|im_end|>' is no token here but 10: < | i m _ e n d | >" in found["split_control_token"].seen


def test_a_control_token_in_pieces_elsewhere_is_a_note() -> None:
    found = check(made(ZEPHYR, eos="</s>"), SINGLE)
    assert levels(found) == {"split_control_token": "note"}


@pytest.mark.parametrize("more", ["<think>\n", "{{ ' ' }}"])
def test_a_generation_prompt_that_training_does_not_have_is_an_error(more: str) -> None:
    template = CHATML.replace("assistant\n{% endif %}", "assistant\n" + more + "{% endif %}")
    found = check(chatml(template), SINGLE)
    assert levels(found) == {"generation_prompt_differs": "error"}
    seen = found["generation_prompt_differs"].seen
    assert repr("\n<|im_start|>assistant\n" + more.replace("{{ ' ' }}", " "))[1:] in seen
    assert "ANSWERTEXT" in seen
    with pytest.raises(BadData, match="begins the answer to the first 1 messages differently"):
        render_messages(chatml(template), SINGLE["messages"], stop_token_ids(chatml(template)))


NEMOTRON = CHATML.replace(
    "{{ m['content'] }}",
    "{{ '<think></think>' if m['role'] == 'assistant' and '<think>' not in m['content'] }}{{ m['content'] }}",
).replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


def test_a_generation_prompt_that_only_rows_without_thinking_contradict_is_an_error_for_these() -> None:
    thoughtful = row(ASKED, turn("assistant", "<think>\nhm\n</think>\n\nSo."))
    assert levels(check(chatml(NEMOTRON))) == {"generation_prompt_differs": "error"}
    assert levels(check(chatml(NEMOTRON), thoughtful)) == {"generation_prompt_differs": "note"}
    found = check(chatml(NEMOTRON), thoughtful, SINGLE)
    assert levels(found) == {"generation_prompt_differs": "error"}
    assert "1 of 2 rows looked at (first row r1)" in found["generation_prompt_differs"].seen


def test_a_generation_prompt_that_later_turns_rewrite_is_told_as_rewriting() -> None:
    """Without thinking, Qwen3.5 begins the last answer with an empty thought, and the generation prompt does too."""
    empty = "<think>\n\n</think>\n\n"
    begun = "{{ '" + empty + "' if loop.last and m['role'] == 'assistant' }}{{ m['content'] }}"
    template = CHATML.replace("{{ m['content'] }}", begun)
    template = template.replace("assistant\n{% endif %}", "assistant\n{{ '" + empty + "' }}{% endif %}")
    assert levels(check(chatml(template), SINGLE)) == {"rewrites_history": "note"}
    found = check(chatml(template), SINGLE, DOUBLE)
    assert levels(found) == {"rewrites_history": "error"}
    assert "1 of 2 rows looked at (first row r2)" in found["rewrites_history"].seen


def test_a_template_that_ignores_the_generation_prompt_trains_its_header() -> None:
    found = check(chatml(CHATML.removesuffix(PROMPT)), SINGLE)
    assert levels(found) == {"header_is_trained": "warning"}
    assert r"'<|im_start|>assistant\n'" in found["header_is_trained"].seen


def test_tokens_that_cross_the_prompt_are_a_note() -> None:
    """The template adds line breaks of which one melts into the one before them."""
    template = CHATML.replace("{{ m['content'] }}", "{{ '\n\n' if m['role'] == 'assistant' }}{{ m['content'] }}")
    assert check(chatml(template), SINGLE) == {}
    assert levels(check(chatml(template, merged=["ĊĊ"]), SINGLE)) == {"tokens_cross_the_prompt": "note"}


def test_rewritten_thinking_is_an_error_for_rows_that_have_it_and_else_a_note() -> None:
    assert levels(check(chatml(QWEN_3), SINGLE, DOUBLE)) == {"rewrites_history": "note"}
    found = check(chatml(QWEN_3), SINGLE, DOUBLE, THINKING)
    assert levels(found) == {"rewrites_history": "error"}
    assert "1 of 3 rows looked at (first row r4)" in found["rewrites_history"].seen
    assert "earlier thinking" in found["rewrites_history"].seen
    assert "single-turn" in found["rewrites_history"].fix


def test_rewritten_answers_are_an_error_for_rows_of_several_turns() -> None:
    """Phi-3 writes one more token after the last message, whichever that is."""
    template = CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}"
    tokenizer = made(template, "<|im_start|>", "<|im_end|>", eos="<|endoftext|>")
    assert levels(check(tokenizer)) == {"rewrites_history": "warning"}
    assert levels(check(tokenizer, SINGLE)) == {"rewrites_history": "note"}
    found = check(tokenizer, SINGLE, DOUBLE)
    assert levels(found) == {"rewrites_history": "error"}
    assert "an earlier answer" in found["rewrites_history"].seen
    assert "<|endoftext|>" in found["rewrites_history"].seen


def test_a_refused_system_message_is_an_error_for_rows_that_have_one() -> None:
    found = check(gemma(), SINGLE, WITH_SYSTEM)
    assert levels(found) == {"system_refused": "error"}
    assert "1 of 2 rows have one" in found["system_refused"].seen
    assert "System role not supported" in found["system_refused"].seen


def test_a_system_message_left_out_without_a_word_is_an_error_for_rows_that_have_one() -> None:
    template = CHATML.replace("in messages %}", "in messages if m['role'] != 'system' %}")
    assert levels(check(chatml(template), SINGLE)) == {"system_left_out": "note"}
    found = check(chatml(template), SINGLE, WITH_SYSTEM)
    assert levels(found) == {"system_left_out": "error"}
    assert "first user message" in found["system_left_out"].fix


def test_a_default_system_prompt_is_told_with_its_text_and_its_rows() -> None:
    found = check(chatml(WITH_DEFAULT), SINGLE, DOUBLE, WITH_SYSTEM)
    assert levels(found) == {"default_system_prompt": "note"}
    assert "'You are Bo, a model that helps.'; 2 of 3 rows" in found["default_system_prompt"].seen


def test_a_template_that_reads_the_clock_is_warned_about() -> None:
    template = "<|im_start|>system\nToday: {{ strftime_now('%d %b %Y') }}<|im_end|>\n" + CHATML
    assert check(chatml(template), SINGLE)["template_reads_the_clock"].level == "warning"


def test_rows_that_only_some_templates_take_are_told_with_the_first() -> None:
    twice = row(ASKED, ASKED, ANSWERED, name="r9")
    found = check(llama(MISTRAL), SINGLE, twice)
    assert found["rows_refused"].level == "error"
    assert "1 of 2 rows looked at (first row r9)" in found["rows_refused"].seen
    assert "roles must alternate" in found["rows_refused"].seen


def test_rows_with_tools_that_the_template_leaves_out_are_an_error() -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    found = check(chatml(), SINGLE, {**SINGLE, "id": "r8", "tools": tools})
    assert levels(found) == {"rows_tools_left_out": "error"}
    assert "leaves out the tool weather" in found["rows_tools_left_out"].seen


def test_an_answer_whose_end_the_template_forgets_for_some_rows_is_an_error() -> None:
    template = CHATML.replace("<|im_end|>", "{{ '' if 'set' in m['content'] else '<|im_end|>' }}")
    found = check(chatml(template), SINGLE, row(ASKED, turn("assistant", "a set"), name="r7"))
    assert levels(found) == {"rows_missing_end_of_turn": "error"}
    assert "first row r7" in found["rows_missing_end_of_turn"].seen


def test_a_generation_prompt_that_differs_for_some_rows_is_an_error() -> None:
    more = "{{ 'Well, ' if add_generation_prompt and messages | length > 2 }}"
    found = check(chatml(CHATML + more), SINGLE, DOUBLE)
    assert levels(found) == {"rows_generation_prompt_differs": "error"}
    assert "first row r2" in found["rows_generation_prompt_differs"].seen


def test_rows_that_were_rendered_before_are_warned_about() -> None:
    done = row(turn("user", "<|im_start|>user\nQ<|im_end|>"), ANSWERED, name="r6")
    found = check(chatml(), SINGLE, done)
    assert levels(found) == {"control_tokens_in_rows": "warning"}
    assert "1 of 2 rows looked at (first row r6)" in found["control_tokens_in_rows"].seen
    assert (
        "<|im_end|>" in found["control_tokens_in_rows"].seen or "<|im_start|>" in found["control_tokens_in_rows"].seen
    )


def test_rows_without_an_answer_have_no_trained_tokens() -> None:
    asked = row(ASKED, name="r5")
    assert levels(check(chatml(), asked)) == {"no_trained_tokens": "error"}
    found = check(chatml(), SINGLE, asked)
    assert levels(found) == {"no_trained_tokens": "warning"}
    assert "1 of 2 rows" in found["no_trained_tokens"].seen


def test_the_share_of_trained_tokens_is_warned_about_below_1_and_above_95_percent() -> None:
    """By hand, a token for each letter: 8 around the question, 11 to begin the answer, 1 to end it."""
    prompt = "x" * 1000
    short = row(turn("user", prompt), turn("assistant", "y"))
    found = check(chatml(), short)
    assert levels(found) == {"few_trained_tokens": "warning"}
    assert "2 of 1021 tokens (0.2%)" in found["few_trained_tokens"].seen
    found = check(chatml(), row(turn("user", "x"), turn("assistant", prompt)))
    assert levels(found) == {"nearly_all_trained": "warning"}
    assert "1001 of 1021 tokens (98.0%)" in found["nearly_all_trained"].seen


def test_findings_come_in_the_order_of_the_checks_whatever_the_rows() -> None:
    tokenizer = llama("{{ bos_token }}" + MISTRAL, pad="</s>")
    rows = [WITH_SYSTEM, row(turn("user", "a</s>b"), ANSWERED), row(ASKED, ASKED, ANSWERED)]
    names = ["double_bos", "pad_is_stop_token", "system_refused", "rows_refused", "control_tokens_in_rows"]
    stops = stop_token_ids(tokenizer)
    assert [item.name for item in check_template(tokenizer, stops, rows)] == names
    assert [item.name for item in check_template(tokenizer, stops, rows[::-1])] == names


def test_all_errors_are_raised_at_once_with_their_fixes() -> None:
    findings = [
        Finding("one", "error", "seen one", "fix one"),
        Finding("two", "warning", "seen two", "fix two"),
        Finding("three", "error", "seen three", "fix three"),
    ]
    with pytest.raises(BadData) as raised:
        require_healthy(findings)
    assert raised.value.exit_code == 65
    assert "one: seen one" in raised.value.message
    assert "three: seen three" in raised.value.message
    assert "two" not in raised.value.message + raised.value.hint
    assert raised.value.hint == "one: fix one\nthree: fix three"
    require_healthy(findings[1:2])
    require_healthy([])


def test_a_sample_has_every_order_of_roles() -> None:
    rows = [SINGLE] * 500 + [DOUBLE] * 500 + [WITH_SYSTEM, THINKING, {**SINGLE, "tools": []}]
    found = sample(rows)
    assert len(found) == 2 * SAME_SHAPE_ROWS + 3 < SAMPLE_ROWS
    assert found[-3:] == rows[-3:]
    talks = [row(*([ASKED, ANSWERED] * turns)) for turns in range(1, 300)]
    assert len(sample(talks)) == SAMPLE_ROWS


@pytest.mark.model
def test_the_demo_model_has_notes_only() -> None:
    from ftcli.core.stage import Kind
    from ftcli.models.load import load_tokenizer
    from ftcli.pipeline.resolve import from_outside

    tokenizer = load_tokenizer(from_outside("demo:smollm2", Kind.MODEL, "").path)
    found = check(tokenizer, SINGLE, DOUBLE, WITH_SYSTEM)
    assert levels(found) == {"pad_is_stop_token": "note", "default_system_prompt": "note"}
    assert "named SmolLM, trained by Hugging Face" in found["default_system_prompt"].seen
