"""Graders made in code: each sees what the desk would show and votes by a rule."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from ftcli.human.plan import showings
from ftcli.human.tasks import Candidate, Item, Judgement, Task

Rule = Callable[[Item, tuple[str, ...], random.Random], Mapping[str, int]]
"""(item, ids as shown, randomness) -> rank by id."""


def items(count: int, names: str = "ab", texts: Callable[[int, str], str] = "{1} says {0}".format) -> list[Item]:
    """``count`` prompts with an answer of each source in ``names``."""
    return [Item(f"i{i}", [], tuple(Candidate.of(texts(i, name), name) for name in names)) for i in range(count)]


def says(item: Item, grader: str, *ranks: int, **settings: object) -> Judgement:
    """``ranks`` of the item's distinct answers; none of them is "both bad"."""
    ids = tuple(one.id for one in item.distinct)
    given = {"task": "t", "item": item.id, "grader": grader, "verdict": "ranked" if ranks else "both_bad", "order": ids}
    return Judgement(
        **{**given, "ranks": dict(zip(ids, ranks, strict=True)) if ranks else {}, "seconds": 9.0, **settings}
    )


def honest(right: float) -> Rule:
    """Prefers what is really better, which is the answer with the smallest id, with probability ``right``."""

    def rule(item: Item, order: tuple[str, ...], rng: random.Random) -> dict[str, int]:
        best = min(order) if rng.random() < right else rng.choice([id for id in order if id != min(order)])
        return {id: 1 if id == best else 2 for id in order}

    return rule


def guessing(item: Item, order: tuple[str, ...], rng: random.Random) -> dict[str, int]:
    best = rng.choice(order)
    return {id: 1 if id == best else 2 for id in order}


def leftmost(item: Item, order: tuple[str, ...], rng: random.Random) -> dict[str, int]:
    return {id: 1 if id == order[0] else 2 for id in order}


def desk(of: Sequence[Item], rules: Mapping[str, Rule], seed: int, *, seconds: float = 9.0) -> list[Judgement]:
    """The votes of graders who all judge every item, a tenth of them twice."""
    task = Task(id="t", kind="rank", title="", wanted=0, overlap=len(rules), seed=seed)
    found = {item.id: item for item in of}
    votes = []
    for grader, rule in rules.items():
        rng = random.Random(f"{seed} {grader}")
        for shown in showings(task, of, grader, list(rules)):
            ranks = rule(found[shown.item], shown.order, rng)
            votes.append(
                Judgement(
                    task="t",
                    item=shown.item,
                    grader=grader,
                    verdict="ranked",
                    ranks=ranks,
                    order=shown.order,
                    seconds=seconds,
                    is_repeat=shown.is_repeat,
                )
            )
    return votes
