"""What a language model is asked when it judges two answers, and the small set of pairs that shows whether it can judge at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from ftcli.data.rows import Message
from ftcli.data.texts import said

QUESTION = """Two answers to the same request are given below. Which one serves the person who asked better?
What counts is whether it is right, to the point, complete, and in the form that was asked for.
Being longer is no merit of its own, nor is standing first.

Request:
{request}

Answer A:
{a}

Answer B:
{b}

Which answer is better? Reply with one letter only, A or B."""


class Pair(NamedTuple):
    """A request and two answers to it."""

    request: str
    first: str
    second: str

    def swapped(self) -> Pair:
        return Pair(self.request, self.second, self.first)

    @property
    def question(self) -> str:
        return QUESTION.format(request=self.request, a=self.first, b=self.second)


def request_of(prompt: Sequence[Message]) -> str:
    """A conversation as one text: the user's words alone if there is nothing else."""
    if len(prompt) == 1:
        return said(prompt[0])
    return "\n\n".join(f"{message['role']}: {said(message)}" for message in prompt)


CALIBRATION = (
    Pair("What is the capital of France?", "The capital of France is Paris.", "The capital of France is Berlin."),
    Pair("How many days are there in a week?", "There are seven days in a week.", "There are nine days in a week."),
    Pair("What is 6 times 7?", "6 times 7 is 42.", "6 times 7 is 36."),
    Pair("Name a fruit that is yellow.", "A banana.", "A brick."),
    Pair("Which planet is closest to the sun?", "Mercury is closest to the sun.", "I like the sun a lot."),
    Pair("Write the word HELLO in lower case.", "hello", "HELLO"),
    Pair(
        "Is water wet or dry? Answer in one word.",
        "Wet.",
        "The weather was fine yesterday, so we went for a long walk.",
    ),
    Pair("Translate 'good morning' into Spanish.", "Buenos días.", "Guten Morgen."),
    Pair("List two primary colours.", "Red and blue.", "Red red red red red red red red red red red red"),
    Pair(
        "How do you boil an egg?",
        "Put it into boiling water for about eight minutes.",
        "Put it into the freezer for a year.",
    ),
    Pair("Who wrote Romeo and Juliet?", "William Shakespeare wrote it.", "It was written by Isaac Newton in 1999."),
    Pair("Finish the sentence: The opposite of hot is", "cold.", ""),
)
"""Our own. The first answer of each is better beyond doubt."""


def version() -> str:
    """A digest of question and calibration set: figures of two wordings are not compared."""
    text = json.dumps([QUESTION, CALIBRATION], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
