"""The shipped file itself: its shape, and whether its answers are right as far as a program can tell."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections import Counter
from itertools import pairwise, takewhile
from pathlib import Path

import pytest

from ftcli.core.errors import UsageError
from ftcli.metrics.instructions import follows, last_number
from ftcli.stages.eval import suite as module
from ftcli.stages.eval.suite import Item, load_suite

FILE = Path(module.__file__).with_name("suites") / "general.jsonl"
SUITE = load_suite("general")
FIELDS = {
    "facts": {"prompt", "answer", "wrong"},
    "arithmetic": {"prompt", "answer"},
    "format": {"prompt", "answer", "checks"},
    "reading": {"prompt", "answer", "wrong"},
    "code": {"language", "text"},
    "prose": {"language", "text"},
}


def shared(lists: list[list[str]]) -> int:
    """How many words all lists begin with."""
    return len(list(takewhile(lambda words: len(set(words)) == 1, zip(*lists, strict=False))))


def slot(sentences: list[str]) -> list[str]:
    """What is left of each sentence without the beginning and the end that all of them share, cut between words."""
    split = [sentence.removesuffix(".").split() for sentence in sentences]
    start = shared(split)
    end = shared([words[start:][::-1] for words in split])
    return [" ".join(words[start : len(words) - end]) for words in split]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def solve(question: str) -> int:
    """The answer to an arithmetic item, worked out from its words."""
    given = numbers(question)
    if match := re.fullmatch(r"What is (\d+(?: [+-] \d+)+)\?", question):
        signed = match[1].replace("+ ", "+").replace("- ", "-").split()
        return sum(map(int, signed))
    if re.match(r"What is \d+ times|Each ", question):
        return given[0] * given[1]
    if re.match(r"What is \d+ divided by", question):
        quotient, rest = divmod(*given)
        assert rest == 0
        return quotient
    if re.match(r"What is \d+ percent of", question):
        hundredths = given[0] * given[1]
        assert hundredths % 100 == 0
        return hundredths // 100
    if "gives away" in question or "years younger" in question:
        return given[0] - given[1]
    if question.startswith("Which number comes next"):
        steps = {second - first for first, second in pairwise(given)}
        factors = {second / first for first, second in pairwise(given)}
        assert len(steps) == 1 or len(factors) == 1
        return given[-1] + steps.pop() if len(steps) == 1 else int(given[-1] * factors.pop())
    if "is larger" in question:
        return sorted(given)[-1]
    if question.startswith("If x"):
        return next(x for x in range(1000) if x + given[0] == given[1])
    if "are even" in question:
        return [number % 2 for number in given].count(0)
    if "directly behind" in question:
        return given[0] + 1
    if "day of the month" in question:
        assert sum(given) <= 28  # the same in every month
        return sum(given)
    if "get off" in question:
        people, off, on = given
        return people - off + on
    raise AssertionError(f"no rule for {question}")


def test_the_file_says_what_it_is():
    head = json.loads(FILE.read_text(encoding="utf-8").split("\n")[0])
    assert head == {"suite": "general", "version": "1", "license": "CC0-1.0", "items": len(SUITE.items)}
    assert SUITE.digest == "sha256:" + hashlib.sha256(FILE.read_bytes()).hexdigest()


def test_the_file_is_small():
    assert FILE.stat().st_size < 120_000


def test_there_are_as_many_items_of_each_kind_as_were_written():
    counts = Counter(item.kind for item in SUITE.items)
    assert counts == {"facts": 60, "arithmetic": 60, "format": 40, "reading": 30, "code": 30, "prose": 30}


def test_ids_questions_and_texts_are_unique():
    assert len({item.id for item in SUITE.items}) == len(SUITE.items)
    assert len({item.prompt or item.text for item in SUITE.items}) == len(SUITE.items)


@pytest.mark.parametrize("kind", FIELDS)
def test_every_item_has_the_fields_of_its_kind_and_no_others(kind: module.Kind):
    for item in SUITE.of(kind):
        filled = {name for name, value in vars(item).items() if value} - {"id", "kind"}
        assert filled == FIELDS[kind], item.id
        assert all(value == value.strip() for value in (item.prompt, item.answer, *item.wrong)), item.id


@pytest.mark.parametrize("kind", ["facts", "reading"])
def test_the_four_choices_are_one_sentence_with_four_endings_or_middles_of_like_length(kind: module.Kind):
    for item in SUITE.of(kind):
        choices = slot([item.answer, *item.wrong])
        assert all(choices), item.id
        assert len({choice.casefold() for choice in choices}) == 4, item.id
        longest, shortest = max(map(len, choices)), min(map(len, choices))
        assert longest <= 3 * shortest + 3, item.id


def test_the_right_choice_is_neither_the_longest_nor_the_shortest_as_a_rule():
    of_four = SUITE.of("facts", "reading")
    longest = sum(len(item.answer) > max(map(len, item.wrong)) for item in of_four)
    shortest = sum(len(item.answer) < min(map(len, item.wrong)) for item in of_four)
    assert longest < 0.35 * len(of_four)
    assert shortest < 0.35 * len(of_four)


def test_right_answers_are_sentences_so_that_they_measure_knowledge_and_not_terseness():
    """A model that answers in sentences finds a bare word unlikely however well it knows it, and less so once it is damaged."""
    assert min(len(item.answer.split()) for item in SUITE.of("facts", "arithmetic", "reading")) >= 4


@pytest.mark.parametrize("item", SUITE.of("arithmetic"), ids=lambda item: item.id)
def test_arithmetic_is_right(item: Item):
    assert last_number(item.answer) == solve(item.prompt)


@pytest.mark.parametrize("item", SUITE.of("format"), ids=lambda item: item.id)
def test_the_example_follows_its_instruction(item: Item):
    assert follows(item.answer, item.checks)


@pytest.mark.parametrize("refusal", ["I'm sorry, but I cannot help with that.", "No", "Sure!", "Here you are."])
def test_no_instruction_is_followed_by_accident(refusal: str):
    followed = [item.id for item in SUITE.of("format") if follows(refusal, item.checks)]
    assert followed == (["format-19"] if refusal in ("No", "Sure!") else [])  # it asks for one word, any word


def test_python_items_are_python():
    for item in SUITE.of("code"):
        if item.language == "python":
            ast.parse(item.text)


def test_languages_of_raw_text():
    assert Counter(item.language for item in SUITE.of("code")) == {"python": 12, "sql": 6, "shell": 6, "javascript": 6}
    assert Counter(item.language for item in SUITE.of("prose")) == {"en": 16, "de": 5, "fr": 4, "es": 5}


def test_an_unknown_suite_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="there is no suite mmlu") as caught:
        load_suite("mmlu")
    assert caught.value.hint == "suites: general"
