from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.plan import Exemplar, exemplar_of, passages_of, plan, turn_of

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be brief."}


def exemplars(count: int) -> list[Exemplar]:
    return [Exemplar(f"s{n}", f"request <{n}>", f"answer <{n}>", (), (f"s{n}",)) for n in range(count)]


@pytest.mark.parametrize(
    ("row", "is_one"),
    [
        ({"id": "a", "messages": [USER, ANSWER]}, True),
        ({"id": "a", "messages": [SYSTEM, USER, ANSWER]}, True),
        ({"id": "a", "prompt": [USER]}, True),
        ({"id": "a", "prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, True),
        ({"id": "a", "messages": [USER, ANSWER, USER, ANSWER]}, False),
        ({"id": "a", "prompt": [USER, ANSWER]}, False),
        ({"id": "a", "messages": [USER, ANSWER], "tools": []}, False),
        ({"id": "a", "text": "Why?"}, False),
    ],
)
def test_only_one_request_of_a_user_can_be_asked_about(row: dict[str, Any], is_one: bool) -> None:
    assert (exemplar_of(row) is not None) is is_one


def test_passages_are_pieces_of_the_text_cut_between_paragraphs_if_they_can_be() -> None:
    text = f"{'a' * 70}\n\n{'b' * 60} {'c' * 30}\n\n{'d' * 150}\n"
    found = list(passages_of({"id": "doc", "text": text}, 100))
    assert [item.text for item in found] == ["a" * 70, f"{'b' * 60} {'c' * 30}", "d" * 100, "d" * 50]
    assert all(text[item.start :].startswith(item.text) for item in found)
    assert list(passages_of({"id": "doc", "text": " \n "}, 100)) == []


def test_seeds_are_used_alike_and_never_twice_in_a_request() -> None:
    asks = plan(SynthConfig(requests=70, examples=3), exemplars(7), [])
    assert all(len(set(ask.seed_ids)) == 3 for ask in asks)
    used = Counter(name for ask in asks for name in ask.seed_ids)
    assert set(used.values()) == {30}
    assert len({tuple(ask.seed_ids) for ask in asks}) > 35, "each round has an order of its own"
    assert [ask.messages for ask in asks] == [ask.messages for ask in plan(SynthConfig(requests=70), exemplars(7), [])]
    assert asks != plan(SynthConfig(requests=70, seed=1), exemplars(7), [])


def test_fewer_seeds_than_examples_are_all_shown() -> None:
    asks = plan(SynthConfig(requests=3, examples=5), exemplars(2), [])
    assert [sorted(ask.seed_ids) for ask in asks] == [["s0", "s1"]] * 3


@pytest.mark.parametrize(("items", "choices"), [(4, 6), (5, 5), (4, 5), (1, 3), (6, 1)])
def test_every_item_meets_every_choice(items: int, choices: int) -> None:
    pairs = {(n % items, turn_of(n, items, choices)) for n in range(items * choices)}
    assert len(pairs) == items * choices


def test_each_request_carries_one_combination_of_the_attributes_in_turn() -> None:
    config = SynthConfig(
        mode="augment", requests=8, attributes={"topic": ("files", "lists"), "level": ("easy", "hard")}
    )
    asks = plan(config, exemplars(1), [])
    wanted = [(topic, level) for topic in ("files", "lists") for level in ("easy", "hard")]
    assert [tuple(ask.attributes.values()) for ask in asks[:4]] == wanted
    assert Counter(tuple(ask.attributes.values()) for ask in asks) == dict.fromkeys(wanted, 2)
    assert "- topic: files\n- level: easy\n" in asks[0].messages[0]["content"]
    assert "attributes" not in plan(SynthConfig(requests=1), exemplars(3), [])[0].messages[0]["content"]


def test_braces_in_a_seed_are_shown_as_they_are() -> None:
    item = Exemplar("a", "What is {x} in f'{x}'?", "{x}", (), ("a",))
    asked = plan(SynthConfig(mode="preferences", requests=1), [item], [])[0].messages[0]["content"]
    assert "What is {x} in f'{x}'?" in asked
    assert '{"flaw": "what is wrong with the answer", "response": "the worse answer"}' in asked
