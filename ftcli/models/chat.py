"""A model that answers, its text told while it is written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from ftcli.core.errors import UsageError
from ftcli.models.generate import generate

UNFINISHED = "\ufffd"
"""What a tokenizer decodes bytes to that are no whole character, such as the first half of one."""


@dataclass(frozen=True)
class Answer:
    """``tokens`` counts the end-of-turn token too; ``interrupted`` is an answer that Ctrl-C stopped."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length", "interrupted"]


class TextStream:
    """The text of tokens that come one by one. A character is given out when it is whole, special tokens are not."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._given = 0

    def add(self, token: int) -> str:
        """What can be shown now, and could not be before ``token``."""
        self._ids.append(token)
        return self._next(self.text.rstrip(UNFINISHED))

    def rest(self) -> str:
        """What was held back, once no more tokens come: bytes that are no character."""
        return self._next(self.text)

    def _next(self, text: str) -> str:
        new = text[self._given :]
        self._given = max(self._given, len(text))
        return new

    @property
    def text(self) -> str:
        # Cleaning up spaces would change text that was given out, and code that means its spaces.
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def __len__(self) -> int:
        return len(self._ids)


@dataclass(frozen=True)
class Speaker:
    """A loaded model with its tokenizer. ``adapter_off`` makes an adapter's base of it."""

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    adapter_off: bool = False

    @property
    def context_tokens(self) -> int | None:
        """The most tokens, prompt and answer together, that the model has positions for."""
        found = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if found is None else int(found)

    def check_fits(self, prompt: list[int]) -> None:
        """Raise `UsageError` if no token of an answer fits after ``prompt``."""
        limit = self.context_tokens
        if limit is not None and len(prompt) >= limit:
            raise UsageError(
                f"{self.name}: the conversation has {len(prompt)} tokens and the model's context holds {limit}",
                "start a new conversation (/reset), or send less",
            )

    def answer(
        self,
        prompt: list[int],
        on_text: Callable[[str], None],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        key: str,
    ) -> Answer:
        """The answer to the rendered conversation ``prompt``; its text goes to ``on_text`` as it comes.

        It is cut at ``max_new_tokens`` or at the end of the context, whichever comes first. Ctrl-C stops it and is not raised.
        ``temperature``, ``seed`` and ``key`` are those of `generate`.
        """
        self.check_fits(prompt)
        room = max_new_tokens if self.context_tokens is None else self.context_tokens - len(prompt)
        stream = TextStream(self.tokenizer)
        reason: Literal["stop", "length", "interrupted"] = "interrupted"
        try:
            with self.model.disable_adapter() if self.adapter_off else nullcontext():
                [generation] = generate(
                    self.model,
                    [prompt],
                    [key],
                    stop_ids=self.stop_ids,
                    pad_id=self.tokenizer.pad_token_id,
                    max_new_tokens=min(max_new_tokens, room),
                    temperature=temperature,
                    seed=seed,
                    on_token=lambda row, token: _tell(on_text, stream.add(token)),
                )
            reason = generation.finish_reason
        except KeyboardInterrupt:
            pass
        _tell(on_text, stream.rest())
        return Answer(stream.text, len(stream), reason)


def _tell(on_text: Callable[[str], None], text: str) -> None:
    if text:
        on_text(text)
