"""Language models that judge: one in this process, asked for the probability of its one-letter reply."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ftcli.core.errors import UsageError
from ftcli.data.chat import render_prompt
from ftcli.metrics.next_token import next_logprobs
from ftcli.models.generate import adapters_in, split_model
from ftcli.models.load import longest_input
from ftcli.stages.eval.judge_prompt import Pair
from ftcli.stages.eval.subject import Save, Subject


class LocalJudge:
    """A model whose reply is not sampled: the verdict is the probability of ``A`` as its next token beside that of ``B``.

    Raises `UsageError` for a model that cannot be asked. ``note`` is told, in words, of pairs that are longer than its context:
    they have no verdict.
    """

    def __init__(self, subject: Subject, note: Callable[[str], None] = lambda text: None) -> None:
        self._subject, self._note = subject, note
        artifact = subject.artifact
        self.who = artifact.ref
        self.identity = artifact.digest if artifact.base is None else f"{artifact.digest} on {artifact.base.digest}"
        if not subject.tokenizer.chat_template:
            raise UsageError(
                f"judge: {self.who} has no chat template to ask it with", "give an instruction-tuned model"
            )
        self._before, self._letters = self._spelled()
        self._longest = longest_input((artifact.base or artifact).path)

    def _spelled(self) -> tuple[list[int], tuple[int, int]]:
        """The tokens that both letters begin with, usually none, and the one after them in which each differs from the other."""
        a, b = (self._subject.tokenizer(letter, add_special_tokens=False).input_ids for letter in "AB")
        for place, letters in enumerate(zip(a, b, strict=False)):
            if letters[0] != letters[1]:
                return a[:place], letters
        raise UsageError(f"judge: {self.who} has no tokens for the letters A and B", "give another model")

    def prefers_first(self, pairs: Sequence[Pair]) -> list[float | None]:
        tokenizer = self._subject.tokenizer
        asked = [
            [*render_prompt(tokenizer, [{"role": "user", "content": pair.question}]), *self._before] for pair in pairs
        ]
        short = [place for place, prompt in enumerate(asked) if self._longest is None or len(prompt) < self._longest]
        if len(short) < len(asked):
            self._note(
                f"judge: {len(asked) - len(short)} of {len(asked)} questions have no verdict: "
                f"with the reply they are longer than the {self._longest} tokens that {self.who} can read"
            )
        verdicts: list[float | None] = [None] * len(pairs)
        for place, (a, b) in zip(short, self._logprobs([asked[place] for place in short]), strict=True):
            verdicts[place] = 1 / (1 + math.exp(min(b - a, 700.0)))
        return verdicts

    def _logprobs(self, prompts: list[list[int]]) -> list[list[float]]:
        """Those of both letters after each prompt."""
        subject = self._subject

        def compute(rows: list[int], save: Save) -> None:
            model = subject.model()
            backbone, head = split_model(model)
            with adapters_in(model, backbone.dtype):
                next_logprobs(
                    backbone,
                    head,
                    [prompts[row] for row in rows],
                    self._letters,
                    pad_id=int(subject.tokenizer.pad_token_id),
                    batch_size=subject.batch_size,
                    on_rows=lambda done, found: save([rows[place] for place in done], found),
                    on_halved=subject.halved,
                )

        parts = [{"prompt": prompt, "next": list(self._letters)} for prompt in prompts]
        return subject.kept("next", parts, compute, "verdicts")
