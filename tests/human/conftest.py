"""Tasks and items made in code."""

from __future__ import annotations

from typing import Any

from ftcli.human.store import Candidate, Item, Judgement, Task


def pair(number: int, left: str = "base", right: str = "tuned") -> Item:
    """A prompt with one answer of each of two models."""
    answers = (Candidate.of(f"Answer {number} of one.", left), Candidate.of(f"Answer {number} of two.", right))
    return Item(f"i{number}", [{"role": "user", "content": f"Question {number}?"}], answers)


def answers(number: int, count: int) -> Item:
    """A prompt with an answer of each of ``count`` models."""
    found = tuple(Candidate.of(f"Answer {number} of {name}.", name) for name in "mnopqrst"[:count])
    return Item(f"i{number}", [{"role": "user", "content": f"Question {number}?"}], found)


def review_item(number: int) -> Item:
    messages = [
        {"role": "user", "content": f"Question {number}?"},
        {"role": "assistant", "content": f"Answer {number}."},
    ]
    return Item(f"r{number}", [], row={"id": f"r{number}", "messages": messages, "meta": {"teacher": "secret-teacher"}})


def rank_task(**settings: Any) -> Task:
    return Task(**{"id": "rank-1", "kind": "rank", "title": "Which answer is better?", "wanted": 20, **settings})


def review_task(**settings: Any) -> Task:
    return Task(**{"id": "review-1", "kind": "review", "title": "Is this row right?", "wanted": 5, **settings})


def vote(of: Item, grader: str = "ann", *, best: int = 0, **settings: Any) -> Judgement:
    """``grader`` says that the candidate with index ``best`` is better than all others, which tie."""
    ids = tuple(one.id for one in of.candidates)
    ranks = {id: 1 if place == best else 2 for place, id in enumerate(ids)}
    given = {"task": "rank-1", "item": of.id, "grader": grader, "verdict": "ranked", "ranks": ranks, "order": ids}
    return Judgement(**{**given, "seconds": 2.5, **settings})
