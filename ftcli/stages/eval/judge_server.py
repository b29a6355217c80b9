"""A language model behind an OpenAI-compatible server as the judge.

Servers differ in what they tell and take, so the first question, whose answer is known, finds out how this one is asked: for one
letter with the probabilities of the likeliest first tokens; else for the letter alone; else, a model that thinks before it answers,
for its thoughts too, which are not read. How it is asked is part of ``who``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ftcli.models.remote import RemoteChat, Reply, RequestRefused
from ftcli.stages.eval.judge_prompt import CALIBRATION, Pair

KEY_NAME = "FTCLI_JUDGE_API_KEY"
LEAST_MASS = 0.5
"""The probability of both letters together below which the first token is no verdict, and the text is read instead."""
VERDICT = re.compile(r"\W*(?:(?i:answer)\W+(?:is\W+)?)?([AB])(?:\W*|\W+is\b.*)", re.DOTALL)
"""A letter, or a sentence that begins with one and ``is``: ``A good answer`` is none."""


class Way(NamedTuple):
    """``settings`` of a request, and what a verdict that is read from the text is called."""

    settings: dict[str, Any]
    without: str


WAYS = (
    *(
        Way({"temperature": 0, "max_tokens": 4, "logprobs": True, "top_logprobs": top}, "without probabilities")
        for top in (20, 5)
    ),
    Way({"temperature": 0, "max_tokens": 4}, "without probabilities"),
    Way({"max_completion_tokens": 4096}, "after thinking, sampled"),
)
"""Four tokens are enough for one letter and a mark before it. Servers give at most 20 log-probs a place, some 5. Models that think
take no temperature, and their limit has another name."""


class ServerJudge:
    """The model ``model`` at ``url``. It is asked a first question at once: build it before any work that takes long.

    Raises `UsageError` where the server refuses the key, the model or every way of asking, `StageFailed` where it does not answer.
    ``note`` is told, in words, of pairs that it refuses: they have no verdict.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None,
        progress: Callable[[str, int, int], None] = lambda task, done, total: None,
        note: Callable[[str], None] = lambda text: None,
        **options: Any,
    ) -> None:
        self._chat = RemoteChat(url, model, key, KEY_NAME, **options)
        self._progress, self._note = progress, note
        self._settings, how = self._way()
        self.who = f"{model} at {self._chat.url}{how and f', {how}'}"
        self.identity = f"{model}|{how or 'probabilities'}"

    def _way(self) -> tuple[dict[str, Any], str]:
        """Settings that the server takes, the first of `WAYS` with a verdict if there is one, and how verdicts are then had."""
        question, taken = _messages(CALIBRATION[0]), None
        for way in WAYS:
            try:
                reply = self._chat.reply(question, **way.settings)
            except RequestRefused as error:
                refused = error
                continue
            found = way.settings, "" if reply.first else way.without
            if verdict(reply) is not None:
                return found
            taken = taken or found
        if taken is None:
            raise refused
        return taken

    def prefers_first(self, pairs: Sequence[Pair]) -> list[float | None]:
        found = self._chat.replies(
            [_messages(pair) for pair in pairs],
            lambda done: self._progress("judging", done, len(pairs)),
            **self._settings,
        )
        refused = [one for one in found if isinstance(one, RequestRefused)]
        if refused:
            self._note(f"judge: {len(refused)} of {len(pairs)} requests have no verdict: {refused[0].message}")
        return [verdict(one) if isinstance(one, Reply) else None for one in found]


def verdict(reply: Reply) -> float | None:
    """The probability that ``A`` is the reply: from the log-probs of its first token, else 1 or 0 by its text. None where it is
    neither letter."""
    mass = {
        letter: sum(math.exp(value) for token, value in reply.first.items() if token.strip() == letter)
        for letter in "AB"
    }
    total = mass["A"] + mass["B"]
    if total >= LEAST_MASS:
        return mass["A"] / total
    said = VERDICT.fullmatch(reply.text.rpartition("</think>")[2])
    return None if said is None else float(said[1] == "A")


def _messages(pair: Pair) -> list[dict[str, str]]:
    return [{"role": "user", "content": pair.question}]
