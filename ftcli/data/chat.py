"""From messages to token ids: the one place that renders a chat, so that training, scoring and generation agree.

A rendered answer ends with the end-of-turn token and not with what a template puts after it (SmolLM2's template adds a line
break): reward models pool there, PPO puts the score there, and perplexity counts up to there.

The loss mask comes from prefixes of the rendered conversation, so it needs no ``{% generation %}`` markers in the template, and
never from comparing ids with the padding id, which is often the end-of-turn id itself.

A conversation with tools is rendered once more with marks (`ftcli.data.tool_marks`), and refused if the template leaves out a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateError

from ftcli.core.errors import BadData
from ftcli.data.rows import Message, Row
from ftcli.data.tool_calls import calls_tools
from ftcli.data.tool_marks import Tool, marked, with_objects

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


FaultName = Literal[
    "no_chat_template",
    "refused",
    "tools_left_out",
    "generation_prompt_differs",
    "rewrites_history",
    "missing_end_of_turn",
]


class TemplateFault(BadData):
    """A conversation that cannot be trained on as the chat template renders it; ``name`` says why in one word.

    `ftcli.data.template_doctor` says the same of a template as a whole.
    """

    def __init__(self, name: FaultName, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.name = name


@dataclass(frozen=True)
class Rendered:
    """``input_ids`` and, for each, whether it is trained on (``loss_mask``); both of the same length."""

    input_ids: list[int]
    loss_mask: list[bool]


def render_text(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[Tool] | None = None, *, answer_next: bool
) -> str:
    """What the chat template writes for ``messages``; with ``answer_next``, up to where an answer begins.

    Raises `TemplateFault` if there is no template, or it refuses them.
    """
    if not tokenizer.chat_template:
        raise TemplateFault(
            "no_chat_template",
            "the model has no chat template, so messages cannot be rendered",
            "use an instruction-tuned model, or put a chat_template.jinja into the model folder",
        )
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tools=list(tools) if tools else None, add_generation_prompt=answer_next, tokenize=False
            )
        )
    except (
        TemplateError,
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
    ) as error:  # a template is a program and can fail as one
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TemplateFault(
            "refused",
            f"the model's chat template refuses the messages: {reason}",
            "drop such rows, or use another model",
        ) from None


def _for_template(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[Tool] | None
) -> list[Message]:
    """``messages`` as templates take them: themselves, unless tools are called.

    Raises `TemplateFault` if the template leaves out a call, what a tool answered, or one of ``tools``.
    """
    if not tools and not calls_tools(messages):
        return messages
    whole = with_objects(messages)
    marked_messages, marked_tools, places = marked(whole, tools or [])
    text = render_text(tokenizer, marked_messages, marked_tools or None, answer_next=False)
    missing = next((what for mark, what in places.items() if mark not in text), None)
    if missing:
        raise TemplateFault(
            "tools_left_out",
            f"the model's chat template leaves out {missing}",
            "use a model whose template knows tools, or drop such rows",
        )
    return whole


def _encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[Tool] | None, *, answer_next: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of the rendered ``messages``, and for each assistant turn where its answer begins and where the turn ends.

    No token crosses these places: an answer that begins with a line break would else melt into the line break before
    it, and what is trained would not be what generation sees.
    """
    messages = _for_template(tokenizer, messages, tools)
    whole = render_text(tokenizer, messages, tools, answer_next=answer_next)
    ids: list[int] = []
    spans = []
    done = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        turn = messages[: index + 1]
        start = _cut(tokenizer, turn, tools, whole, answer_next=True)
        stop = _cut(tokenizer, turn, tools, whole, answer_next=False)
        ids = _extend(tokenizer, ids, whole, done, start)
        first = len(ids)
        ids = _extend(tokenizer, ids, whole, start, stop)
        spans.append((first, len(ids)))
        done = stop
    return _extend(tokenizer, ids, whole, done, len(whole)), spans


def _cut(
    tokenizer: PreTrainedTokenizerBase, turn: list[Message], tools: list[Tool] | None, whole: str, *, answer_next: bool
) -> int:
    """How much of ``whole`` renders ``turn``, which it begins with and whose last message is an answer; with ``answer_next``,
    up to where this answer begins."""
    prompt = turn[:-1] if answer_next else turn
    prefix = render_text(tokenizer, prompt, tools, answer_next=answer_next)
    if whole.startswith(prefix):
        return len(prefix)
    if answer_next and not render_text(tokenizer, turn, tools, answer_next=False).startswith(prefix):
        raise TemplateFault(
            "generation_prompt_differs",
            f"the chat template begins the answer to the first {len(prompt)} messages differently for generation "
            "(add_generation_prompt) and for training, so what is trained would not be what generation sees",
            "edit chat_template.jinja so that its generation prompt is how it begins an assistant's message",
        )
    raise TemplateFault(
        "rewrites_history",
        f"the chat template renders the first {len(prompt)} messages differently once more follow, "
        "so what is trained would not be what generation sees",
        "use a template without such rewriting (some strip earlier thinking), or train on single-turn rows",
    )


def _extend(tokenizer: PreTrainedTokenizerBase, ids: list[int], whole: str, done: int, stop: int) -> list[int]:
    """Ids of ``whole[:stop]`` that begin with ``ids``, those of ``whole[:done]``."""
    if stop == done:
        return ids
    together = _tokens(tokenizer, whole[:stop])
    return together if together[: len(ids)] == ids else ids + _tokens(tokenizer, whole[done:stop])


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A template writes all special tokens itself, so none is added."""
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: list[Message], tools: list[Tool] | None = None
) -> list[int]:
    """Ids of ``prompt`` up to where the assistant's answer begins."""
    return _encode(tokenizer, prompt, tools, answer_next=True)[0]


def render_answer(
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[Message],
    answer: str,
    stop_ids: frozenset[int],
    tools: list[Tool] | None = None,
) -> tuple[list[int], list[int]]:
    """``(prompt ids, answer ids)``; the answer includes its end-of-turn token and nothing after it."""
    ids, spans = _encode(tokenizer, [*prompt, {"role": "assistant", "content": answer}], tools, answer_next=False)
    start, stop = spans[-1]
    return ids[:start], ids[start : _end_of_turn(ids, start, stop, stop_ids)]


def render_messages(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    stop_ids: frozenset[int],
    tools: list[Tool] | None = None,
) -> Rendered:
    """Ids of a conversation that ends with an answer, trained on every assistant turn through its end-of-turn token.

    ``tools`` are those of the row; a turn that calls some is trained on like any other.

    Raises `TemplateFault` when the template rewrites earlier turns or begins an answer otherwise than its generation prompt
    (then no prefix of the whole equals what generation sees), does not end the assistant's turn with one of ``stop_ids`` (then
    the model would never learn to stop), or leaves out tools.
    """
    ids, spans = _encode(tokenizer, messages, tools, answer_next=False)
    mask = [False] * len(ids)
    end = 0
    for start, stop in spans:
        end = _end_of_turn(ids, start, stop, stop_ids)
        mask[start:end] = [True] * (end - start)
    return Rendered(ids[:end], mask[:end])


def _end_of_turn(whole: list[int], start: int, stop: int, stop_ids: frozenset[int]) -> int:
    for position in range(stop - 1, start - 1, -1):
        if whole[position] in stop_ids:
            return position + 1
    raise TemplateFault(
        "missing_end_of_turn",
        "the chat template does not end the assistant's turn with the model's end-of-sequence token",
        "set eos_token of the tokenizer to the token that ends a turn",
    )


def row_name(row: Row) -> str:
    """What messages call a row: its id, or the place it was read from."""
    meta = row.get("meta") or {}
    place = f"{meta['file']}:{meta['line']}" if "file" in meta and "line" in meta else "?"
    return f"row {row.get('id') or place}"


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, generation_eos: int | list[int] | None = None) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's end-of-sequence token and those of the model's generation config."""
    extra = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or [])
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    if not own and not extra:
        raise BadData("the model has no end-of-sequence token", "set eos_token in its tokenizer_config.json")
    return frozenset(own + extra)


def generation_eos(folder: Path) -> int | list[int] | None:
    """The ids at which the model in ``folder`` stops generating by itself, from its configs: no weights are read."""
    from transformers import AutoConfig, GenerationConfig  # noqa: PLC0415  (seconds, and most who read rows need no model)

    try:
        config = GenerationConfig.from_pretrained(folder)
    except OSError:  # what a loaded model does without a generation_config.json
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    found: int | list[int] | None = config.eos_token_id
    return found
