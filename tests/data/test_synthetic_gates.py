"""Each gate, in its order. ROUGE-L is held against rouge_score, similarity against sets of 5-grams made here."""

from __future__ import annotations

import random
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from ftcli.data.synthetic_gates import Candidate, Drop, Dropped, Gates, Limits, Prompts, words_of


def row(prompt: str, answer: str, name: str = "") -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": name or prompt[:20], "messages": messages, "meta": {}}


def written(prompt: str, answer: str) -> Candidate:
    return Candidate(row(prompt, answer), (prompt, answer))


def pair(prompt: str, chosen: str, rejected: str) -> Candidate:
    made = {
        "id": rejected[:20],
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "meta": {},
    }
    return Candidate(made, (rejected,), copied=chosen, is_new_prompt=False)


SEED = row("How do I open a file for reading in Python?", "Call open with the file's path.", "seed")
HELD_OUT = "Explain why a dictionary keeps the order in which its keys were inserted since version three seven"


def gates(**limits: Any) -> Gates:
    return Gates([SEED], {"test": [HELD_OUT]}, Limits(**limits))


@pytest.mark.parametrize(
    ("candidate", "reason", "detail"),
    [
        (written("Why?", "It is so."), Drop.TOO_SHORT, "4 characters, at least 5"),
        (written("What is a list made of?", "x" * 201), Drop.TOO_LONG, "201 characters, at most 200"),
        (written("how do I open a FILE for reading, in Python", "As you like."), Drop.COPY, "a seed's"),
        (
            written("How do I open a file for writing in Python?", "With w."),
            Drop.ROUGE_L,
            "0.90 with the prompt of row seed",
        ),
        (written(f"{HELD_OUT}? Be brief.", "Because of its layout."), Drop.CONTAMINATED, "1.00 of prompt 1 of test"),
        (written("Whom do I ask about tuples?", "Write to ann.lee@acme-corp.io now."), Drop.PII, "email a\\*\\*\\*@"),
        (
            written("Name the best language.", "As an AI language model, I have none."),
            Drop.BOILERPLATE,
            "self: as an ai",
        ),
        (pair("Add 2 and 2.", "It is 4.", "it is  4."), Drop.COPY, "the reference itself"),
    ],
)
def test_a_row_is_dropped_at_the_first_gate_it_does_not_pass(candidate: Candidate, reason: Drop, detail: str) -> None:
    with pytest.raises(Dropped, match=detail) as caught:
        gates(min_chars=5, max_chars=200).admit(candidate)
    assert caught.value.reason is reason


def test_a_row_that_passes_tells_its_scores_and_joins_the_pool() -> None:
    judge = gates()
    scores = judge.admit(written("What does the walrus operator do?", "It assigns within an expression."))
    assert scores == {
        "rouge_l": pytest.approx(2 / 16, abs=1e-4),
        "near": 0.0,
        "containment": 0.0,
    }  # do, of 6 and 10 words
    with pytest.raises(Dropped, match="row What does the walrus") as caught:
        judge.admit(written("What does this walrus operator do?", "Nothing like it."))
    assert caught.value.reason is Drop.ROUGE_L


def test_rouge_l_is_that_of_rouge_score() -> None:
    scorer = RougeScorer(["rougeL"])
    draw = random.Random(3)
    texts = [
        " ".join(
            draw.choices(["the", "a", "file", "list", "opens", "in", "Python's", "3", "x_y"], k=draw.randint(1, 14))
        )
        for _ in range(60)
    ]
    for mine, other in zip(texts[:30], texts[30:], strict=True):
        prompts = Prompts()
        prompts.add(other, "other")
        assert prompts.nearest(mine)[0] == pytest.approx(scorer.score(other, mine)["rougeL"].fmeasure, abs=1e-12)


def test_no_prompts_are_near_where_there_are_none() -> None:
    assert Prompts().nearest("What?") == (0.0, "")


def test_ideographs_are_words_and_marks_are_where_there_is_nothing_else() -> None:
    assert words_of("打开 File_2!") == ["打", "开", "file", "2"]
    assert words_of("+ =") == ["+", "="]


def grams(text: str) -> set[str]:
    return {text[place : place + 5] for place in range(len(text) - 4)}


def test_near_duplicates_of_pairs_are_found_among_pairs_only() -> None:
    chosen = "open the file with open and read its lines one after the other until there are none left in it."
    prompt = "how is a long file read without taking all of it into memory at once?"
    conversation = row(prompt, chosen, "seed")
    judge = Gates([conversation], {}, Limits(near=0.8))
    first = "open the file with open and read all of its lines at once, which takes little memory for any file there is"
    judge.admit(pair(prompt, chosen, first))
    wholes = [grams(f"{prompt} {chosen} {text}") for text in (first, f"{first}!")]
    jaccard = len(wholes[0] & wholes[1]) / len(wholes[0] | wholes[1])
    with pytest.raises(Dropped, match=f"similarity {jaccard:.2f}") as caught:
        judge.admit(pair(prompt, chosen, f"{first}!"))
    assert caught.value.reason is Drop.NEAR
    with pytest.raises(Dropped) as caught:
        judge.admit(pair(prompt, chosen, f"{first} ".upper()))
    assert caught.value.reason is Drop.EXACT


def test_rows_whose_numbers_differ_are_no_near_duplicates() -> None:
    prompt, chosen = (
        "what is the sum of the first ten odd numbers, and how is it found quickly?",
        "it is 100, the square of ten.",
    )
    judge = Gates([], {}, Limits(near=0.6))
    judge.admit(pair(prompt, chosen, "it is 110, which is the square of ten and ten more."))
    judge.admit(pair(prompt, chosen, "it is 120, which is the square of ten and ten more."))
