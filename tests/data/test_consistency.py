"""The classes of answers, and which of them look like accidents."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.consistency import FEATURES, Consistency, classes_of

FENCED = "Here:\n```{}\n{}\n```"


@pytest.mark.parametrize(
    ("feature", "text", "expected"),
    [
        ("ends_with", "Done.", "punctuation"),
        ("ends_with", 'He said "yes!"\n', "punctuation"),
        ("ends_with", "(see *above.*)", "punctuation"),
        ("ends_with", "\u597d\u7684\u3002", "punctuation"),
        ("ends_with", "Done", "other"),
        ("ends_with", "1.5", "other"),
        ("ends_with", "Done?)]\u201d", "punctuation"),
        ("ends_with", "Done." + ")" * 15, "punctuation"),
        ("ends_with", "Done." + ")" * 16, "other"),
        ("ends_with", ")", "other"),
        ("ends_with", "", "other"),
        ("starts_with", " Done", "upper"),
        ("starts_with", "\u00e9t\u00e9", "lower"),
        ("starts_with", "\u597d", "uncased"),
        ("starts_with", "7 apples", "other"),
        ("starts_with", "\u0667 apples", "other"),
        ("starts_with", "\u2167. Of Kings", "upper"),
        ("starts_with", "_x", "other"),
        ("starts_with", "", "other"),
        ("starts_with", "- Apples", "other"),
        ("markdown", "# Title\ntext", "yes"),
        ("markdown", "a **bold** word", "yes"),
        ("markdown", "call `f()`", "yes"),
        ("markdown", "see [this](http://x)", "yes"),
        ("markdown", "| a | b |\n|---|---|", "yes"),
        ("markdown", FENCED.format("", "x"), "yes"),
        ("markdown", "2 ** 3 ** 4 #1 a_b | c", "no"),
        ("json", '{"a": [1, 2]}', "valid"),
        ("json", "[1]", "valid"),
        ("json", '{"a": 1,}', "broken"),
        ("json", "{'a': 1}", "broken"),
        ("json", '[{"a": 1}, {"a"', "broken"),
        ("json", "[1, 2, 3", "broken"),
        ("json", "[link](http://x) and more", "none"),
        ("json", "{{name}} is here", "none"),
        ("json", "[Your name]\nDear", "none"),
        ("json", 'The answer: {"a": 1}', "none"),
        ("fences", FENCED.format("py", "x"), "closed"),
        ("fences", "```\nx", "unclosed"),
        ("fences", FENCED.format("", "x") + "\n```", "unclosed"),
        ("fences", "~~~\nx\n~~~", "closed"),
        ("fences", "1. item\n    ```\n    x\n    ```", "closed"),
        ("fences", "the ```code``` inline", "none"),
        ("fences", "```code```", "none"),
        ("code", "no code", "none"),
        ("code", FENCED.format("python", "def f():\n    return 1"), "parses"),
        ("code", FENCED.format("Python", "def f(:"), "broken"),
        ("code", FENCED.format("python", "print 'old'"), "broken"),
        ("code", FENCED.format("python", "'\\d'"), "parses"),
        ("code", FENCED.format("python", ">>> 1 +\n2"), "unchecked"),
        ("code", "  ```python\n  x = 1\n  y = 2\n  ```", "parses"),
        ("code", FENCED.format("json", '{"a": 1}'), "parses"),
        ("code", FENCED.format("json", "{a: 1}"), "broken"),
        ("code", FENCED.format("json", "{}") + "\n" + FENCED.format("json", "{"), "broken"),
        ("code", FENCED.format("rust", "fn ("), "unchecked"),
        ("code", FENCED.format("python", "(" * 5000), "broken"),
        ("code", FENCED.format("python", "-" * 9000 + "1"), "broken"),
        ("code", FENCED.format("python", "(" * 30_000), "unchecked"),
        ("answer_marker", "6 x 7\n#### 42", "####"),
        ("answer_marker", "#### 42\nmore", "none"),
        ("list", "Steps:\n1. one\n2. two", "1."),
        ("list", "1) one\n 2) two", "1)"),
        ("list", "- one\n- two", "-"),
        ("list", "* one\n* two", "*"),
        ("list", "\u2022 one", "\u2022"),
        ("list", "1. one\n   - two", "mixed"),
        ("list", "-1 is less than 1.5", "none"),
    ],
)
def test_classes(feature: str, text: str, expected: str) -> None:
    assert dict(zip(FEATURES, classes_of(text), strict=True))[feature] == expected


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=80))
def test_any_text_has_a_class_of_every_feature(text: str) -> None:
    assert len(classes_of(text)) == len(FEATURES)
    assert all(classes_of(text))


def counted(texts: list[str], file: str = "f") -> Consistency:
    found = Consistency()
    for line, text in enumerate(texts, start=1):
        found.add(text, (file, line))
    return found


def test_a_rare_class_beside_a_common_one_is_listed_with_places() -> None:
    result = counted(["Yes."] * 91 + ["Yes"] * 9).result()
    assert result["features"]["ends_with"] == {"other": 9, "punctuation": 91}
    assert result["minorities"] == [
        {
            "feature": "ends_with",
            "class": "other",
            "rows": 9,
            "share": 0.09,
            "examples": [{"file": "f", "line": line} for line in (92, 93, 94)],
        }
    ]


@pytest.mark.parametrize("common", [90, 80, 50])
def test_a_tenth_or_more_is_no_accident(common: int) -> None:
    assert counted(["Yes."] * common + ["Yes"] * (100 - common)).result()["minorities"] == []


@pytest.mark.parametrize(("lower", "listed"), [(15, ["other"]), (16, [])])
def test_without_four_fifths_of_one_class_none_is_an_accident(lower: int, listed: list[str]) -> None:
    texts = ["Yes."] * (96 - lower) + ["yes."] * lower + ["1."] * 4  # 81 of 100 are a majority, 80 are none
    assert [item["class"] for item in counted(texts).result()["minorities"]] == listed


def test_what_is_broken_is_listed_however_common() -> None:
    texts = ['{"a": 1'] * 5 + ["```\nx"] * 3 + [FENCED.format("json", "{")]
    found = counted(texts).result()
    assert [(item["feature"], item["class"], item["rows"]) for item in found["broken"]] == [
        ("json", "broken", 5),
        ("fences", "unclosed", 3),
        ("code", "broken", 1),
    ]
    assert found["broken"][1]["examples"] == [{"file": "f", "line": line} for line in (6, 7, 8)]


def test_a_broken_class_is_not_listed_twice_and_code_is_no_habit() -> None:
    texts = ["Yes."] * 95 + ["Yes.\n```", FENCED.format("python", "x") + "."]
    found = counted(texts).result()
    assert ("fences", "unclosed") not in [(item["feature"], item["class"]) for item in found["minorities"]]
    assert "code" not in [item["feature"] for item in found["minorities"]]


def test_parts_may_be_counted_apart_and_merged_in_any_order() -> None:
    texts = random.Random(1).choices(["Yes.", "no", "- a\n- b", "{", '{"a": 1}', "1. x", "```"], k=60)
    whole = counted(texts).result()
    for order in (1, 2, 3):
        parts = [Consistency() for _ in range(4)]
        for line, text in enumerate(texts, start=1):
            parts[line % 4].add(text, ("f", line))
        merged = Consistency()
        for part in random.Random(order).sample(parts, 4):
            merged.merge(part)
        assert json.dumps(merged.result()) == json.dumps(whole)


@given(
    st.lists(st.sampled_from(["Yes.", "no", "- a\n- b", "{", "```", "1. x", "# T\n#### 1"]), min_size=1, max_size=40)
)
def test_each_feature_is_counted_as_if_alone(texts: list[str]) -> None:
    result = counted(texts).result()
    for number, feature in enumerate(FEATURES):
        assert result["features"][feature] == Counter(classes_of(text)[number] for text in texts)
    for item in (*result["minorities"], *result["broken"]):
        number = FEATURES.index(item["feature"])
        lines = [line for line, text in enumerate(texts, start=1) if classes_of(text)[number] == item["class"]]
        assert item["rows"] == len(lines)
        assert item["examples"] == [{"file": "f", "line": line} for line in lines[:3]]


def test_nothing_added_is_an_empty_result() -> None:
    assert Consistency().result() == {"answers": 0, "features": {}, "minorities": [], "broken": []}
