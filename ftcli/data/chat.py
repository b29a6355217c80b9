"""From messages to token ids: the one place that renders a chat, so that training, scoring and generation agree.

A rendered answer ends with the end-of-turn token and not with what a template puts after it (SmolLM2's template adds a line
break): reward models pool there, PPO puts the score there, and perplexity counts up to there.

The loss mask comes from prefixes of the rendered conversation, so it needs no ``{% generation %}`` markers in the template, and
never from comparing ids with the padding id, which is often the end-of-turn id itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftcli.core.errors import BadData
from ftcli.data.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rendered:
    """``input_ids`` and, for each, whether it is trained on (``loss_mask``); both of the same length."""

    input_ids: list[int]
    loss_mask: list[bool]


def _template(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, answer_next: bool) -> list[int]:
    if not tokenizer.chat_template:
        raise BadData(
            "the model has no chat template, so messages cannot be rendered",
            "use an instruction-tuned model, or put a chat_template.jinja into the model folder",
        )
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=answer_next, tokenize=True, return_dict=False)
    return [int(token) for token in ids]


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: list[Message]) -> list[int]:
    """Ids of ``prompt`` up to where the assistant's answer begins."""
    return _template(tokenizer, prompt, answer_next=True)


def render_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: list[Message], answer: str, stop_ids: frozenset[int]
) -> tuple[list[int], list[int]]:
    """``(prompt ids, answer ids)``; the answer includes its end-of-turn token and nothing after it."""
    rendered = render_messages(tokenizer, [*prompt, {"role": "assistant", "content": answer}], stop_ids)
    cut = len(render_prompt(tokenizer, prompt))
    return rendered.input_ids[:cut], rendered.input_ids[cut:]


def render_messages(tokenizer: PreTrainedTokenizerBase, messages: list[Message], stop_ids: frozenset[int]) -> Rendered:
    """Ids of a conversation that ends with an answer, trained on every assistant turn through its end-of-turn token.

    Raises `BadData` when the template rewrites earlier turns (then no prefix of the whole equals what generation sees) or
    does not end the assistant's turn with one of ``stop_ids`` (then the model would never learn to stop).
    """
    whole = _template(tokenizer, messages, answer_next=False)
    mask = [False] * len(whole)
    end = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = len(_matching_prefix(tokenizer, messages[:index], whole, answer_next=True))
        stop = len(_matching_prefix(tokenizer, messages[: index + 1], whole, answer_next=False))
        end = _end_of_turn(whole, start, stop, stop_ids)
        mask[start:end] = [True] * (end - start)
    return Rendered(whole[:end], mask[:end])


def _matching_prefix(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], whole: list[int], *, answer_next: bool
) -> list[int]:
    prefix = _template(tokenizer, messages, answer_next=answer_next)
    if whole[: len(prefix)] != prefix:
        raise BadData(
            f"the chat template renders the first {len(messages)} messages differently once more follow, "
            "so what is trained would not be what generation sees",
            "use a template without such rewriting (some strip earlier thinking), or train on single-turn rows",
        )
    return prefix


def _end_of_turn(whole: list[int], start: int, stop: int, stop_ids: frozenset[int]) -> int:
    for position in range(stop - 1, start - 1, -1):
        if whole[position] in stop_ids:
            return position + 1
    raise BadData(
        "the chat template does not end the assistant's turn with the model's end-of-sequence token",
        "set eos_token of the tokenizer to the token that ends a turn",
    )


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, generation_eos: int | list[int] | None = None) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's end-of-sequence token and those of the model's generation config."""
    extra = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or [])
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    if not own and not extra:
        raise BadData("the model has no end-of-sequence token", "set eos_token in its tokenizer_config.json")
    return frozenset(own + extra)
