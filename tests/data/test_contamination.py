"""Containment of evaluation items in rows: what is found, what is not, and what counts as one."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcli.data.contamination import EvaluationIndex, Matches
from tests.data.planted import Prose

QUESTION = "Natalia sold clips to 48 of her friends in April and then half as many clips in May"
"""17 words, 15 different 3-grams."""


def match(items: list[str], texts: list[str], threshold: float = 0.5) -> Matches:
    return EvaluationIndex.of(items).match(texts, texts, threshold)


def grams(text: str, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.8]))
def test_containment_is_that_of_sets_of_words(seed: int, threshold: float) -> None:
    source = random.Random(seed)
    items, texts = (
        [" ".join(source.choices("abcd", k=source.randint(20, 40))) for _ in range(count)] for count in (3, 6)
    )
    items = list(dict.fromkeys(items))
    found = match(items, texts, threshold)
    for row, text in enumerate(texts):
        shared = [len(grams(item, 3) & grams(text, 3)) for item in items]
        contained = [count / len(grams(item, 3)) for count, item in zip(shared, items, strict=True)]
        enough = [share >= threshold and count >= 8 for share, count in zip(contained, shared, strict=True)]
        best = max(zip(enough, contained, strict=True))
        assert found.contaminated[row] == best[0] == enough[found.item[row]]
        assert found.containment[row] == pytest.approx(best[1]) == contained[found.item[row]]
        assert found.flagged[row] == any(grams(item, 13) & grams(text, 13) for item in items)


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.8]))
def test_overlaps_are_all_pairs_and_not_only_the_best(seed: int, threshold: float) -> None:
    source = random.Random(seed)
    items = [" ".join(source.choices("abcd", k=source.randint(20, 40))) for _ in range(3)]
    parts = [" ".join(item.split()[: source.randint(5, 40)]) for item in items]
    texts = [f"{source.choice(parts)} e f {source.choice(parts)}" for _ in range(6)]
    items = list(dict.fromkeys(items))
    expected = {}
    for row, text in enumerate(texts):
        for place, item in enumerate(items):
            shared, size = len(grams(item, 3) & grams(text, 3)), len(grams(item, 3))
            if (shared >= threshold * size and shared >= 8) or grams(item, 13) & grams(text, 13):
                expected[row, place] = pytest.approx(shared / size)
    found = EvaluationIndex.of(items).overlaps(texts, threshold)
    pairs = zip(found.row.tolist(), found.item.tolist(), strict=True)
    assert dict(zip(pairs, found.containment.tolist(), strict=True)) == expected


def test_a_passage_of_common_words_is_an_overlap_without_any_containment() -> None:
    """Every 3-gram of the passage is in all items, which so have none of their own; its 13 words in this order are in one."""
    words = [f"w{number}" for number in range(15)]
    grams_of_it = [" ".join(words[start : start + 3]) for start in range(13)]
    filler = Prose(9)
    items = [f" {filler.text(6)} ".join(grams_of_it) for _ in range(8)]
    index = EvaluationIndex.of([*items, " ".join(words)])
    found = index.overlaps(["nothing of it", " ".join(words)])
    assert (found.row.tolist(), found.item.tolist(), found.containment.tolist()) == ([1], [8], [0.0])


@pytest.mark.parametrize(("items", "texts"), [([], []), ([], ["a text"]), (["", " "], ["", "a b c"]), ([QUESTION], [])])
def test_nothing_overlaps_nothing(items: list[str], texts: list[str]) -> None:
    found = EvaluationIndex.of(items).overlaps(texts)
    assert (len(found.row), len(found.item), len(found.containment)) == (0, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper().replace(" ", "\n") + "!",
        f"<p>Solve this: **{QUESTION}**</p> Think step by step, then write the answer on a line of its own.",
        QUESTION.replace("clips", "pins", 1),
        " ".join(QUESTION.split()[:11]),
    ],
)
def test_copies_are_found_also_inside_other_text_reformatted_edited_or_cut(text: str) -> None:
    found = match(["An item about something else that has nothing in common", QUESTION], ["Unlike it.", text])
    assert found.contaminated.tolist() == [False, True]
    assert found.item.tolist() == [-1, 1]


def test_a_shared_phrase_is_only_flagged_and_a_half_of_few_words_is_not_enough() -> None:
    phrase = " ".join(QUESTION.split()[:13])
    long_item = f"{phrase} but {Prose(1).text(60)}"
    found = match([long_item, "What is the capital of France?"], [phrase, "What is the capital of Spain?"])
    assert found.contaminated.tolist() == [False, False]
    assert found.flagged.tolist() == [True, False]
    assert found.containment[1] == 0.75
    assert match(["What is the capital of France?"], ["Tell me: what is the capital of France"]).contaminated.all()


def test_short_items_must_be_the_whole_prompt() -> None:
    index = EvaluationIndex.of(["What is AI?", "x <= y", QUESTION])
    prompts = ["what  is AI?", "Tell me what is AI?", "x < y", "X <= Y", "no"]
    texts = [f"{prompt}\nAn answer." for prompt in prompts]
    found = index.match(texts, prompts)
    assert found.contaminated.tolist() == [True, False, False, True, False]
    assert found.item.tolist() == [0, -1, -1, 1, -1]
    assert found.containment.tolist() == [1, 0, 0, 1, 0]


def test_a_template_of_all_items_is_not_theirs() -> None:
    template = "Answer the following question with one word and give no reason for the answer that you choose"
    prose = Prose(2)
    items = [f"{template}: {prose.text(12)}" for _ in range(20)]
    found = match(items, [f"{template}: {prose.text(12)}", items[7]])
    assert found.contaminated.tolist() == [False, True]
    assert found.flagged.tolist() == [False, True]
    assert found.item[1] == 7


def test_an_item_given_many_times_is_one_item() -> None:
    found = match([QUESTION] * 60 + [Prose(3).text(20)], [QUESTION])
    assert found.contaminated.tolist() == [True]
    assert found.item.tolist() == [0]
    assert found.containment.tolist() == [1]


def test_scripts_without_spaces_are_compared_by_character() -> None:
    item = "小明有三个苹果小红给了他五个苹果他现在一共有多少个苹果"
    found = match([item], [f"请回答{item}谢谢", "今天天气很好我们一起去公园散步吧好不好"])
    assert found.contaminated.tolist() == [True, False]


@pytest.mark.parametrize(("items", "texts"), [([], []), ([], ["a text"]), (["", " "], ["", "a b c"]), ([QUESTION], [])])
def test_nothing_contaminates_nothing(items: list[str], texts: list[str]) -> None:
    found = match(items, texts)
    assert len(found.contaminated) == len(texts)
    assert not found.contaminated.any()
    assert (found.item == -1).all()


def test_the_order_of_rows_and_the_size_of_the_parts_decide_nothing() -> None:
    prose = Prose(4)
    items = [prose.text(30) for _ in range(40)]
    texts = [f"{prose.text(prose.random.randint(0, 400))} {prose.edited(item, 0.1)}" for item in items] * 3
    order = np.array(random.Random(5).sample(range(len(texts)), len(texts)))
    one, other = match(items, texts), match(items, [texts[place] for place in order])
    assert one.contaminated.mean() > 0.8
    assert np.array_equal(one.item[order], other.item)
    assert np.array_equal(one.containment[order], other.containment)
