from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ftcli.metrics.instructions import CHECKS, follows, instruction, last_number

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"check": "json_object", "keys": ["name", "age"]},
        ['{"name": "Mia", "age": 9}', ' {"age": null, "name": []}\n', '```json\n{"name": "Mia", "age": 9}\n```'],
        [
            '{"name": "Mia"}',
            '{"name": "Mia", "age": 9, "town": "Ulm"}',
            'Here: {"name": "Mia", "age": 9}',
            "{'name': 'Mia', 'age': 9}",
            '{"name": "Mia", "age": NaN}',
            '["name", "age"]',
            "[" * 100_000,
        ],
    ),
    (
        {"check": "bullets", "n": 2},
        ["- a\n- b", "* a\n* b", "Two things:\n\n  • a\n  • b\nThat is all."],
        ["- a", "- a\n- b\n- c", "-a\n-b", "1. a\n2. b", "a - b - c", "- \n- "],
    ),
    ({"check": "upper_case"}, ["GOOD DAY!", "ÄRGER 3", "ДА"], ["Good day", "GOOD DAy", "123"]),
    ({"check": "lower_case"}, ["good day!", "straße 3"], ["Good day", "GOOD", "123"]),
    ({"check": "words", "at_most": 3}, ["one", "one two - three", "it's fine now."], ["one two three four"]),
    (
        {"check": "words", "at_least": 2, "at_most": 3},
        ["one two", "one, two, three"],
        ["one", "one ... !", "one two three four"],
    ),
    ({"check": "contains", "word": "cat"}, ["A cat.", "CAT", "the cat's bed"], ["cats", "concatenate", "dog"]),
    ({"check": "contains", "word": "C++"}, ["I like C++.", "c++"], ["I like C+", "CC++"]),
    ({"check": "avoids", "word": "cat"}, ["A dog.", "concatenate"], ["A cat.", "The Cat"]),
    ({"check": "starts_with", "phrase": "I suggest"}, ["I suggest tea.", "\n I suggest"], ["i suggest tea", "Tea"]),
    ({"check": "ends_with", "phrase": "That is all."}, ["Go. That is all.\n"], ["That is all. Go.", "That is all"]),
    (
        {"check": "number_only"},
        ["8", " -3\n", "1,020", "2.5", "12345"],
        ["8.", "eight", "8 legs", "1,2", "8 9", "--3", ""],
    ),
    (
        {"check": "sentences", "n": 2},
        [
            "One here. Two there.",
            "Really?! Yes",
            'He said "no." Then he left.',
            "It costs 3.50 today. Fine!",
            "一つ。二つ。",
        ],
        ["Only one.", "One. Two. Three.", "...", "No full stop"],
    ),
    (
        {"check": "comma_items", "n": 3},
        ["a, b, c", "red,green,blue.", "a, b, and c", "一、二、三"],
        ["a, b", "a, b, c, d", "a, , c", "a,\nb,\nc", "a, b and c", "a, b, c,"],
    ),
    ({"check": "script", "name": "cyrillic"}, ["Добрый день!", "да 3"], ["Dobry den", "Добрый day", "123"]),
    ({"check": "script", "name": "latin"}, ["Grüß Gott", "naïve"], ["καλημέρα", ""]),
    ({"check": "script", "name": "greek"}, ["καλημέρα"], ["kalimera"]),
    ({"check": "script", "name": "japanese"}, ["こんにちは世界", "テスト"], ["hello", "Привет"]),
    ({"check": "script", "name": "chinese"}, ["你好"], ["こんにちは"]),
    ({"check": "script", "name": "arabic"}, ["مرحبا"], ["שלום"]),
    ({"check": "script", "name": "hebrew"}, ["שלום"], ["مرحبا"]),
    ({"check": "script", "name": "hangul"}, ["안녕"], ["你好"]),
    ({"check": "script", "name": "devanagari"}, ["नमस्ते"], ["namaste"]),
]


def test_every_check_has_cases():
    assert {case["check"] for case, _, _ in CASES} == set(CHECKS)


@pytest.mark.parametrize(("check", "good", "bad"), CASES, ids=[case["check"] for case, _, _ in CASES])
def test_a_check_passes_and_fails_what_it_should(check: dict[str, Any], good: list[str], bad: list[str]):
    passes = instruction(**check)
    assert [text for text in good if not passes(text)] == []
    assert [text for text in bad if passes(text)] == []


def test_all_checks_of_an_instruction_must_pass():
    checks = [{"check": "upper_case"}, {"check": "contains", "word": "hello"}, {"check": "words", "at_most": 1}]
    assert follows("HELLO", checks)
    assert not follows("HELLO THERE", checks)
    assert not follows("Hello", checks)


@pytest.mark.parametrize("silence", ["", " \n\t"])
def test_silence_follows_no_instruction(silence: str):
    assert instruction("avoids", word="cat")(silence)
    assert not follows(silence, [{"check": "avoids", "word": "cat"}])


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"check": "haiku"}, "unknown check haiku; known: json_object"),
        ({"check": "bullets"}, "check bullets: missing a required argument: 'n'"),
        ({"check": "bullets", "n": 2, "mark": "-"}, "check bullets: got an unexpected keyword argument 'mark'"),
        ({"check": "script", "name": "klingon"}, "unknown script klingon; known: latin"),
    ],
)
def test_a_check_that_does_not_exist_is_an_error_and_not_a_failure(check: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        follows("", [{"check": "upper_case"}, check])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("17", "17"),
        ("3 + 4 = 7.", "7"),
        ("The answer is -12 degrees", "-12"),
        ("It costs $1,020.50!", "1020.5"),
        ("first 3, then 4", "4"),
        ("8-3", "3"),
        ("**42**", "42"),
        ("16.0", "16"),
    ],
)
def test_the_last_number(text: str, number: str):
    assert last_number(text) == Decimal(number)


def test_a_text_without_a_number_has_none():
    assert last_number("seven") is None
