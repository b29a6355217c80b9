"""Who writes: a chat model in this process, or one behind an OpenAI-compatible server."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Protocol

import yaml

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import render_prompt, stop_token_ids
from ftcli.models.generate import Generation, generate, row_seed
from ftcli.models.load import load_model, load_tokenizer_of, longest_input, pick_device, pick_dtype
from ftcli.models.remote import RemoteChat, RequestRefused
from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.journal import Answer, Question

KEY_NAME = "FTCLI_TEACHER_API_KEY"
Heard = Callable[[Question, Answer], None]
FRONT_MATTER = re.compile(r"---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
SEEDS = 2**31
"""Servers take a seed of 31 bits."""


class Teacher(Protocol):
    record: dict[str, Any]
    """What a row's provenance says of it."""

    def ask(self, questions: Sequence[Question], heard: Heard, is_over: Callable[[], bool]) -> None:
        """Tell ``heard`` each answer as soon as it is there; begin no more questions once ``is_over``."""


def teacher_of(ctx: Context[SynthConfig]) -> Teacher:
    """The teacher that the inputs or settings name. Raises `UsageError` unless it is one."""
    config, artifact = ctx.config, ctx.maybe("teacher")
    if (artifact is None) != bool(config.teacher_url):
        raise UsageError(
            "no teacher" if artifact is None else "two teachers: the input teacher and teacher_url",
            "give --teacher MODEL, or --teacher-url ADDRESS and --teacher-model NAME",
        )
    if artifact is None:
        return ServerTeacher(config, os.environ.get(KEY_NAME), ctx.events.note)
    return LocalTeacher(config, artifact, ctx.events.note)


class ServerTeacher:
    """Not every server takes a seed, and models that think take no temperature either, so the first question finds out; what is
    left out is told to ``note``."""

    def __init__(
        self, config: SynthConfig, key: str | None, note: Callable[[str], None] = lambda text: None, **options: Any
    ) -> None:
        self._chat = RemoteChat(config.teacher_url, config.teacher_model, key, KEY_NAME, **options)
        self._config, self._note = config, note
        self._left_out: tuple[str, ...] | None = None
        self.record = {
            "name": config.teacher_model,
            "provider": self._chat.url,
            "license": config.teacher_license or None,
        }

    def ask(self, questions: Sequence[Question], heard: Heard, is_over: Callable[[], bool]) -> None:
        left = iter(questions)
        while self._left_out is None and not is_over() and (first := next(left, None)):
            heard(first, self._first(first))
        stop = threading.Event()
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            asked: dict[Future[Answer], Question] = {}
            try:
                while True:
                    while len(asked) < self._config.concurrency and not is_over():
                        question = next(left, None)
                        if question is None:
                            break
                        asked[pool.submit(self._answer, question, self._left_out or (), stop)] = question
                    if not asked:
                        return
                    for future in wait(asked, return_when=FIRST_COMPLETED).done:
                        heard(asked[future], future.result())
                        del asked[future]
            except BaseException:
                stop.set()  # those that wait for their next attempt do not
                _hear_the_rest(asked, heard)
                raise

    def _first(self, question: Question) -> Answer:
        """The answer to ``question``, with the settings that the server takes; what it refuses in every way is refused."""
        for left_out in ((), ("seed",), ("seed", "temperature", "max_tokens")):
            answer = self._answer(question, left_out, None)
            if not answer.refused:
                self._left_out = left_out
                if left_out:
                    self._note(f"the teacher's server does not take {', '.join(left_out)}: asked without")
                break
        return answer

    def _answer(self, question: Question, left_out: tuple[str, ...], stop: threading.Event | None) -> Answer:
        config = self._config
        settings = {
            "temperature": config.temperature,
            "max_tokens": config.max_new_tokens,
            "seed": row_seed(config.seed, question.key) % SEEDS,
        }
        if "max_tokens" in left_out:
            settings["max_completion_tokens"] = config.max_new_tokens
        try:
            reply = self._chat.reply(
                question.messages, stop, **{name: value for name, value in settings.items() if name not in left_out}
            )
        except RequestRefused as error:
            return Answer("", refused=error.message)
        if config.max_tokens is not None and reply.tokens is None:
            raise UsageError(
                f"{self._chat.url}: the server does not count tokens, so max_tokens cannot be kept to",
                "leave max_tokens unset: --requests and --max-new-tokens bound the work",
            )
        return Answer(reply.text, reply.finish_reason, reply.tokens, left_out=left_out)


def _hear_the_rest(asked: dict[Future[Answer], Question], heard: Heard) -> None:
    """What was on its way when another question failed has been paid for."""
    for future in wait(asked).done:
        if future.exception() is None:
            heard(asked[future], future.result())


class LocalTeacher:
    """A chat model and its tokenizer; it is loaded when it is first asked."""

    def __init__(
        self, config: SynthConfig, artifact: Artifact, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self._config, self._artifact, self._note = config, artifact, note
        self._tokenizer = load_tokenizer_of(artifact)
        if not self._tokenizer.chat_template:
            raise UsageError(
                f"teacher: {artifact.ref} has no chat template to ask it with", "give an instruction-tuned model"
            )
        self._model: Any = None
        self._longest = longest_input((artifact.base or artifact).path)
        licence = config.teacher_license or licence_of(artifact.base or artifact)
        self.record: dict[str, Any] = {"name": artifact.ref, "digest": artifact.digest, "license": licence or None}
        if artifact.base is not None:
            self.record["base"] = {"name": artifact.base.ref, "digest": artifact.base.digest}

    def ask(self, questions: Sequence[Question], heard: Heard, is_over: Callable[[], bool]) -> None:
        left = iter(questions)
        while not is_over() and (block := list(islice(left, self._config.batch_size))):
            self._ask_block(block, heard)

    def _ask_block(self, block: Sequence[Question], heard: Heard) -> None:
        prompts, asked = [], []
        for question in block:
            prompt = render_prompt(self._tokenizer, question.messages)
            needed = len(prompt) + self._config.max_new_tokens
            if self._longest is not None and needed > self._longest:
                refused = f"{needed} tokens with the reply, and the teacher can read {self._longest}"
                heard(question, Answer("", tokens=0, refused=refused))
                continue
            prompts.append(prompt)
            asked.append(question)

        def finished(rows: Sequence[int], found: Sequence[Generation]) -> None:
            for row, item in zip(rows, found, strict=True):
                text = self._tokenizer.decode(item.ids, skip_special_tokens=True)
                heard(asked[row], Answer(str(text), item.finish_reason, len(prompts[row]) + len(item.ids)))

        if prompts:
            self._generate(prompts, [question.key for question in asked], finished)

    def _generate(
        self,
        prompts: Sequence[list[int]],
        keys: Sequence[str],
        finished: Callable[[Sequence[int], Sequence[Generation]], None],
    ) -> None:
        config = self._config
        if self._model is None:
            device = pick_device()
            self._model = load_model(self._artifact, pick_dtype(config.precision, device), device)
        generate(
            self._model,
            prompts,
            keys,
            stop_ids=stop_token_ids(self._tokenizer, self._model.generation_config.eos_token_id),
            pad_id=self._tokenizer.pad_token_id,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=config.seed,
            batch_size=config.batch_size,
            on_rows=finished,
            on_halved=lambda size: self._note(f"out of memory: {size} rows at a time from here on"),
        )


def licence_of(artifact: Artifact) -> str:
    """What the model's source record says, else the front matter of its README.md; empty where neither tells."""
    source = artifact.facts.get("source") or {}
    if source.get("license"):
        return str(source["license"])
    try:
        text = (artifact.path / "README.md").read_text(encoding="utf-8")
        block = FRONT_MATTER.match(text)
        card = yaml.safe_load(block[1]) if block else None
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return str(card.get("license") or "") if isinstance(card, dict) else ""
