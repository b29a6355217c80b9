"""A conversation with one model, or with two that each remember their own answers; the commands typed in it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftcli.cli.screen import Screen
from ftcli.core.config import nearest
from ftcli.core.errors import FtcliError, UsageError
from ftcli.data.chat import TemplateFault, render_prompt, render_text
from ftcli.data.rows import Message

if TYPE_CHECKING:
    from ftcli.models.chat import Answer, Speaker

COMMANDS = {
    "/help": "list these commands",
    "/reset": "start a new conversation; the system message stays",
    "/system TEXT": "set the system message from here on; without TEXT, remove it",
    "/retry": "answer the last message again",
    "/quit": "leave; so does Ctrl-D. Ctrl-C stops an answer",
}


@dataclass(frozen=True)
class Sampling:
    temperature: float
    max_new_tokens: int
    seed: int


class Conversation:
    """What was said so far, once for each model."""

    def __init__(self, speakers: list[Speaker], sampling: Sampling, system: str | None) -> None:
        self._speakers = speakers
        self.sampling = sampling
        self.system = system
        self._histories: list[list[Message]] = [[] for _ in speakers]
        self._asked = 0

    def reset(self) -> None:
        self._histories = [[] for _ in self._speakers]

    def retry(self, screen: Screen) -> list[Answer]:
        """Other answers to the last message, in place of those it had. If there can be none, the old ones stay."""
        if not self._histories[0]:
            raise UsageError("/retry: nothing was asked yet")
        before = self._histories
        self._histories = [history[:-2] for history in before]
        try:
            return self.ask(str(before[0][-2]["content"]), screen)
        except FtcliError:
            self._histories = before
            raise

    def ask(self, text: str, screen: Screen) -> list[Answer]:
        """The answers to ``text``, shown as they come. If it cannot be asked, it is not part of the conversation.

        Ctrl-C stops the answer that is being written, and is raised again when the turn is complete and remembered.
        """
        _check_unicode(text)
        _check_unicode(self.system or "")
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        message: Message = {"role": "user", "content": text}
        prompts = [
            _prompt(speaker, [*system, *history, message])
            for speaker, history in zip(self._speakers, self._histories, strict=True)
        ]
        for speaker, prompt in zip(self._speakers, prompts, strict=True):
            speaker.check_fits(prompt)
        self._asked += 1
        with screen.turn():
            answers = [self._answer(place, prompt, screen) for place, prompt in enumerate(prompts)]
        for history, answer in zip(self._histories, answers, strict=True):
            history += [message, {"role": "assistant", "content": answer.text}]
        for speaker, answer in zip(self._speakers, answers, strict=True):
            self._remark(speaker, answer)
        if any(answer.finish_reason == "interrupted" for answer in answers):
            raise KeyboardInterrupt
        return answers

    def _answer(self, place: int, prompt: list[int], screen: Screen) -> Answer:
        screen.begin(place)
        answer = self._speakers[place].answer(
            prompt,
            lambda text: screen.add(place, text),
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            seed=self.sampling.seed,
            key=str(self._asked),
        )
        screen.end(place)
        return answer

    def _remark(self, speaker: Speaker, answer: Answer) -> None:
        """Say what an answer does not show by itself."""
        if answer.finish_reason == "length" and answer.tokens < self.sampling.max_new_tokens:
            text = f"cut (length): the context of {speaker.context_tokens} tokens is full; /reset starts anew"
        elif answer.finish_reason == "length":
            text = f"cut (length): {answer.tokens} tokens; --max-new-tokens allows more"
        elif answer.finish_reason == "interrupted":
            text = "stopped; what it wrote stays in the conversation"
        elif not answer.text.strip():
            text = "an empty answer"
        else:
            return
        say(f"[{speaker.name}: {text}]")


def _prompt(speaker: Speaker, messages: list[Message]) -> list[int]:
    """``messages`` up to where the answer begins. A template may show earlier answers shortened (without their thinking): training
    must not have that, but here it is what its author means the model to see."""
    try:
        return render_prompt(speaker.tokenizer, messages)
    except TemplateFault as fault:
        if fault.name not in ("rewrites_history", "generation_prompt_differs"):
            raise
        text = render_text(speaker.tokenizer, messages, answer_next=True)
        return list(speaker.tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{text[:80]!a}: no valid UTF-8") from None


def say(text: str) -> None:
    """To people, not to what reads the answers."""
    print(text, file=sys.stderr, flush=True)


def talk(conversation: Conversation, screen: Screen) -> None:
    """Answer what is typed, until /quit, Ctrl-D, or a second Ctrl-C with no line between. Errors are said and do not end it."""
    import readline  # noqa: F401 - gives `input` its editing and history

    say("/help lists the commands; Ctrl-D leaves")
    interrupted = False
    while True:
        try:
            line = input("> ")
            interrupted = False
            if not _take(line, conversation, screen):
                return
        except FtcliError as error:
            say(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))
        except UnicodeDecodeError as error:
            say(f"error: this line is no valid UTF-8: {error}")
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("" if interrupted else "\n[Ctrl-C again leaves]")
            if interrupted:
                return
            interrupted = True


def answer_lines(conversation: Conversation, screen: Screen) -> None:
    """Answer each line of stdin."""
    try:
        for line in sys.stdin:
            if not _take(line.rstrip("\r\n"), conversation, screen):
                return
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is no valid UTF-8: {error}") from None


def _take(line: str, conversation: Conversation, screen: Screen) -> bool:
    """Send ``line`` or do what it commands; False if that is to leave."""
    if line.startswith("/"):
        return _obey(line, conversation, screen)
    if line.strip():
        conversation.ask(line.strip(), screen)
    return True


def _obey(line: str, conversation: Conversation, screen: Screen) -> bool:
    """Do what the command ``line`` says; False for /quit."""
    word, _, rest = line.strip().partition(" ")
    if word == "/quit":
        return False
    if word == "/help":
        width = max(map(len, COMMANDS))
        say("\n".join(f"{name.ljust(width)}  {text}" for name, text in COMMANDS.items()))
    elif word == "/reset":
        conversation.reset()
        say("[a new conversation]")
    elif word == "/system":
        conversation.system = rest.strip() or None
        say("[system message set]" if conversation.system else "[no system message]")
    elif word == "/retry":
        if conversation.sampling.temperature == 0:
            say("[with --temperature 0 the answer is the same]")
        conversation.retry(screen)
    else:
        hint = nearest(word, [name.split()[0] for name in COMMANDS]) or "/help lists them"
        raise UsageError(f"no command {word}", f"{hint} To send it as a message, begin with a space.")
    return True
