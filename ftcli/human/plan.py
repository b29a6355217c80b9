"""Who judges what, in which order, with which answer on which side. Every answer follows from the task's seed and names alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ftcli.human.tasks import Item, Task


@dataclass(frozen=True)
class Showing:
    """One item before one grader; ``order`` has the ids of its distinct candidates, left to right."""

    item: str
    order: tuple[str, ...]
    is_repeat: bool = False


def deal(task: Task, items: Sequence[Item], graders: Sequence[str]) -> dict[str, list[Item]]:
    """The items of each grader: each item goes to ``task.overlap`` graders (to all, where there are fewer).

    No grader has two items more than another. Items whose answers are all the same are dealt to nobody. Who gets which
    item is a shuffle of the task's seed.
    """
    names = sorted(set(graders))
    dealt: dict[str, list[Item]] = {name: [] for name in names}
    shown = [item for item in items if item.shown]
    rng = _rng(task.seed, task.id, *names)
    rng.shuffle(shown)
    for item in shown:
        chosen = sorted(names, key=lambda name: (len(dealt[name]), rng.random()))[: task.overlap]
        for name in chosen:
            dealt[name].append(item)
    return dealt


def showings(task: Task, items: Sequence[Item], grader: str, graders: Sequence[str]) -> list[Showing]:
    """What ``grader``, one of ``graders``, is shown, in order; the same on every call.

    Of a grader's pairs of the same two sources, half have the first source on the left (`_orders`, for more answers too).
    ``task.repeat_share`` of the first ones, drawn from the first third, come again in the last third with the order reversed.
    """
    rng = _rng(task.seed, task.id, grader)
    own = deal(task, items, graders)[grader]
    rng.shuffle(own)
    orders = _orders(own, rng)
    first = [Showing(item.id, orders[item.id]) for item in own]
    return first if task.kind == "review" else _with_repeats(first, task.repeat_share, rng)


def _orders(items: Sequence[Item], rng: random.Random) -> dict[str, tuple[str, ...]]:
    """The order of each item's distinct candidates.

    Items whose answers come from the same k sources share a list of orders, shuffled as a whole: blocks of the k rotations of a
    random permutation, so that after each block every source was equally often in each place.
    """
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        groups.setdefault(tuple(sorted(one.source for one in item.distinct)), []).append(item)
    found = {}
    for sources, group in groups.items():
        size = len(sources)
        orders: list[list[int]] = []
        while len(orders) < len(group):
            first = rng.sample(range(size), size)
            orders += [first[turn:] + first[:turn] for turn in range(max(size, 1))]
        orders = orders[: len(group)]
        rng.shuffle(orders)
        for item, order in zip(group, orders, strict=True):
            by_source = sorted(item.distinct, key=lambda one: one.source)
            found[item.id] = tuple(by_source[place].id for place in order)
    return found


def _with_repeats(first: Sequence[Showing], share: float, rng: random.Random) -> list[Showing]:
    """``first`` with the repeats put in: in the order of their originals, evenly spaced in the last third."""
    third = len(first) // 3
    count = min(int(share * len(first) + 0.5), third)
    again = [first[place] for place in sorted(rng.sample(range(third), count))]
    after = {len(first) - third + (number * third) // count: one for number, one in enumerate(again)} if count else {}
    found = []
    for place, showing in enumerate(first):
        found.append(showing)
        if place in after:
            found.append(Showing(after[place].item, after[place].order[::-1], is_repeat=True))
    return found


def _rng(seed: int, *names: str) -> random.Random:
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest, "big"))
