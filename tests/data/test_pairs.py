from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData
from ftcli.data.chat import stop_token_ids
from ftcli.data.pairs import Answers, Encoded, Pair, encode_pairs, without_prompts
from ftcli.models.load import load_tokenizer


def row(prompt: str, chosen: str, rejected: str, **meta: Any) -> dict[str, Any]:
    def say(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    asked = [{"role": "user", "content": prompt}]
    return {"id": prompt, "prompt": asked, "chosen": say(chosen), "rejected": say(rejected), "meta": meta}


def ranking(prompt: str, ranks: dict[str, int], **meta: Any) -> dict[str, Any]:
    candidates = [{"content": text, "rank": rank} for text, rank in ranks.items()]
    return {
        "id": f"rank {prompt}",
        "prompt": [{"role": "user", "content": prompt}],
        "candidates": candidates,
        "meta": meta,
    }


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


def encode(
    tokenizer: Any, rows: list[dict[str, Any]], max_length: int = 200, overlong: Any = "truncate", **more: Any
) -> Encoded:
    return encode_pairs(tokenizer, rows, stop_token_ids(tokenizer), max_length, overlong, **{"ties": "drop", **more})


def order(pairs: list[Pair]) -> list[tuple[int, int]]:
    return [(pair.winner, pair.loser) for pair in pairs]


def texts(tokenizer: Any, one: Answers) -> list[str]:
    return [tokenizer.decode(answer) for answer in one.answers]


def test_pairs_of_one_prompt_share_their_answers(tokenizer: Any) -> None:
    rows = [row("What?", "the cat", "a mat"), row("Who?", "file", "list"), row("What?", "the cat", "given")]
    found = encode(tokenizer, rows)
    assert [len(one.answers) for one in found.prompts] == [3, 2]
    assert order(found.prompts[0].pairs) == [(0, 1), (0, 2)]
    assert (found.pairs, found.identical, found.repeated, found.overlong) == (3, 0, 0, 0)
    assert texts(tokenizer, found.prompts[0]) == ["the cat<|im_end|>", "a mat<|im_end|>", "given<|im_end|>"]
    assert tokenizer.decode(found.prompts[0].prompt).endswith("<|im_start|>assistant\n")
    assert found.prompts[0].row is rows[0]


def test_a_ranking_is_all_pairs_of_different_rank_as_in_the_reference(tokenizer: Any) -> None:
    found = encode(tokenizer, [ranking("What?", {"the cat": 1, "a mat": 2, "given": 3, "list": 3})])
    assert order(found.prompts[0].pairs) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]  # rlhf_vectors.json, kwise
    assert (found.pairs, found.ties_dropped, found.ties) == (5, 1, 0)


@pytest.mark.parametrize("ties", ["soft", "davidson"])
def test_ties_stay_when_asked_and_are_told_from_wins(tokenizer: Any, ties: str) -> None:
    found = encode(tokenizer, [ranking("What?", {"the cat": 2, "a mat": 1, "given": 2})], ties=ties)
    assert texts(tokenizer, found.prompts[0]) == ["a mat<|im_end|>", "the cat<|im_end|>", "given<|im_end|>"]
    assert found.prompts[0].pairs == [
        Pair(0, 1, row="rank What?"),
        Pair(1, 2, is_tie=True, row="rank What?"),
        Pair(0, 2, row="rank What?"),
    ]
    assert (found.pairs, found.ties, found.ties_dropped) == (3, 1, 0)


def test_an_answer_that_is_in_dropped_ties_alone_is_not_computed(tokenizer: Any) -> None:
    rows = [ranking("What?", {"the cat": 1, "a mat": 1}), ranking("Who?", {"file": 1, "list": 2, "given": 2})]
    found = encode(tokenizer, rows)
    assert [texts(tokenizer, one) for one in found.prompts] == [["file<|im_end|>", "list<|im_end|>", "given<|im_end|>"]]
    assert found.ties_dropped == 2


def test_preferences_and_rankings_of_one_prompt_are_one_group(tokenizer: Any) -> None:
    found = encode(tokenizer, [row("What?", "the cat", "a mat"), ranking("What?", {"a mat": 1, "given": 2})])
    assert len(found.prompts) == 1
    assert order(found.prompts[0].pairs) == [(0, 1), (1, 2)]
    assert [pair.row for pair in found.prompts[0].pairs] == ["What?", "rank What?"]


def test_identical_and_repeated_pairs_are_counted_out(tokenizer: Any) -> None:
    found = encode(tokenizer, [row("a", "x", "x"), row("a", "x", "y"), row("a", "x", "y")])
    assert (found.pairs, found.identical, found.repeated, found.contradicted) == (1, 1, 1, 0)
    assert order(found.prompts[0].pairs) == [(0, 1)]


def test_pairs_that_contradict_each_other_stay_and_are_counted(tokenizer: Any) -> None:
    rows = [row("a", "x", "y"), row("a", "y", "x"), ranking("a", {"x": 1, "y": 1}), row("a", "x", "z")]
    found = encode(tokenizer, rows, ties="soft")
    assert (found.pairs, found.contradicted, found.repeated, found.ties) == (4, 3, 0, 1)
    assert order(found.prompts[0].pairs)[:2] == [(0, 1), (1, 0)]


def test_a_tie_stated_both_ways_round_is_a_repetition(tokenizer: Any) -> None:
    found = encode(tokenizer, [ranking("a", {"x": 1, "y": 1}), ranking("a", {"y": 4, "x": 4})], ties="soft")
    assert (found.pairs, found.repeated) == (1, 1)


def test_a_long_prompt_loses_its_beginning_alike_for_all_its_answers(tokenizer: Any) -> None:
    rows = [row("the cat " * 30, "file", "the list of files is here"), row("Who?", "file", "list")]
    found = encode(tokenizer, rows, max_length=40)
    one = found.prompts[0]
    assert len(one.prompt) + max(map(len, one.answers)) == 40
    assert tokenizer.decode(one.prompt).endswith("<|im_start|>assistant\n")
    assert (found.pairs, found.truncated_prompts, found.overlong) == (2, 1, 0)


def test_overlong_pairs_are_left_out_and_counted_when_asked(tokenizer: Any) -> None:
    rows = [row("the cat " * 30, "file", "list"), row("Who?", "file", "list")]
    found = encode(tokenizer, rows, max_length=40, overlong="reject")
    assert (found.pairs, found.truncated_prompts, found.overlong) == (1, 0, 1)


def test_an_answer_that_fills_the_length_takes_only_its_own_pairs_along(tokenizer: Any) -> None:
    found = encode(tokenizer, [ranking("Who?", {"file": 1, "the list " * 40: 2, "given": 3})], max_length=40)
    assert (found.pairs, found.overlong) == (1, 2)
    assert texts(tokenizer, found.prompts[0]) == ["file<|im_end|>", "given<|im_end|>"]


@pytest.mark.parametrize("seed", range(20))
def test_every_pair_is_accounted_for(tokenizer: Any, seed: int) -> None:
    draw = random.Random(seed)
    drawn = [
        [(draw.choice("uvwxyz"), draw.randint(1, 3)) for _ in range(draw.randint(2, 5))]
        for _ in range(draw.randint(0, 5))
    ]
    rows = []
    for number, candidates in enumerate(drawn):
        one = ranking(f"{number % 2}", {})
        rows.append(one | {"candidates": [{"content": text, "rank": rank} for text, rank in candidates]})
    stated = sum(len(list(combinations(candidates, 2))) for candidates in drawn)
    for ties in ("drop", "soft"):
        found = encode(tokenizer, rows, ties=ties)
        counts = found.counts()
        left_out = ("identical", "repeated", "overlong", "ties_dropped")
        assert counts["pairs"] + sum(counts[name] for name in left_out) == stated
        assert counts["pairs"] == sum(len(one.pairs) for one in found.prompts)
        used = [{place for pair in one.pairs for place in (pair.winner, pair.loser)} for one in found.prompts]
        assert used == [set(range(len(one.answers))) for one in found.prompts]


def test_margins_are_read_when_asked_alone(tokenizer: Any) -> None:
    rows = [
        row("a", "x", "y", margin=1.5, chosen_score=9, rejected_score=1),
        row("b", "x", "y", chosen_score="7.5", rejected_score="7"),
        row("c", "x", "y"),
        ranking("d", {"x": 2, "y": 1, "z": 2}, scores=[0.25, 2, 0.5]),
        ranking("e", {"x": 1, "y": 2}, scores="[3, 1]"),
    ]
    found = encode(tokenizer, rows, use_margin=True, ties="soft")
    margins = [[pair.margin for pair in one.pairs] for one in found.prompts]
    assert margins == [[1.5], [0.5], [0.0], [1.75, 0.0, 1.5], [2.0]]
    assert found.without_margin == 1
    without = encode(tokenizer, rows, ties="soft")
    assert {pair.margin for one in without.prompts for pair in one.pairs} == {0.0}
    assert without.without_margin == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (row("a", "x", "y", margin="much"), r"row a: meta\.margin is 'much', a number needed"),
        (row("a", "x", "y", margin=True), r"row a: meta\.margin is True"),
        (row("a", "x", "y", margin=float("inf")), r"row a: meta\.margin is inf"),
        (row("a", "x", "y", chosen_score=1, rejected_score=None), r"row a: meta\.rejected_score is None"),
        (row("a", "x", "y", chosen_score=1, rejected_score=3), r"row a: a margin of -2: its scores contradict"),
        (ranking("a", {"x": 1, "y": 2}, scores=[1, 2]), r"row rank a: a margin of -1"),
        (ranking("a", {"x": 1, "y": 2}, scores=[1]), r"row rank a: meta\.scores is no list of 2 numbers"),
        (ranking("a", {"x": 1, "y": 2}, scores="high"), r"row rank a: meta\.scores is no list of 2 numbers"),
    ],
)
def test_scores_that_are_no_margin_are_refused_by_row(tokenizer: Any, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadData, match=says) as caught:
        encode(tokenizer, [wrong], use_margin=True)
    assert "use_margin" in caught.value.hint


def test_a_row_that_the_template_refuses_is_named(tokenizer: Any) -> None:
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(BadData, match=r"row Who.*roles must alternate"):
            encode(tokenizer, [row("Who?", "file", "list")])
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        with pytest.raises(BadData, match="row rank Who"):
            encode(tokenizer, [ranking("Who?", {"file": 1, "list": 2})])
    finally:
        tokenizer.chat_template = before


def test_an_answer_of_several_messages_is_refused_by_row(tokenizer: Any) -> None:
    wrong = row("Who?", "file", "list")
    wrong["rejected"] = [*wrong["rejected"], {"role": "user", "content": "And?"}, *wrong["rejected"]]
    with pytest.raises(BadData, match=r"row Who\?: rejected has 3 messages, one answer needed"):
        encode(tokenizer, [wrong])


def test_prompts_of_the_held_out_rows_are_found_in_either_kind_of_row() -> None:
    rows = [row("a", "x", "y"), row("b", "x", "y"), ranking("c", {"x": 1, "y": 2})]
    kept = without_prompts(rows, [ranking("a", {"z": 1, "y": 2}), row("c", "p", "q")])
    assert [one["id"] for one in kept] == ["b"]
