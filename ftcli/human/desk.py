"""What one grader sees next, and what becomes of the answer. No HTTP here, and no name of a model before the grader is done."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from ftcli.core.errors import BadData, UsageError
from ftcli.human.plan import Showing, showings
from ftcli.human.store import Store
from ftcli.human.tasks import Item, Judgement, Task

LONGEST_S = 3600.0
"""A longer time on one showing is kept as this: the grader was away."""
KEYS = {"task", "showing", "verdict", "ranks", "strength", "criteria", "note", "reason", "texts", "seconds"}


class Unblinded(UsageError):
    """The grader knows the models by now, so that nothing can be added or taken back."""


class Desk:
    """The open tasks of a store for a fixed list of graders.

    A browser knows tasks and showings by their number in this object's lists, and answers by their place on the screen.
    """

    def __init__(self, store: Store, graders: Sequence[str], overlap: int | None = None) -> None:
        self.store = store
        self.graders = tuple(graders)
        self._overlap = overlap
        self._plans: dict[tuple[str, str], list[Showing]] = {}

    # ---- what is asked

    def tasks(self, grader: str) -> list[dict[str, Any]]:
        return [self._about(task, grader) for task in self.store.tasks()]

    def _about(self, task: Task, grader: str) -> dict[str, Any]:
        plan, judged = self._plan(task, grader), self.store.judged(task.id, grader)
        done = sum((one.item, one.is_repeat) in judged for one in plan)
        return {
            "kind": task.kind,
            "title": task.title,
            "guidelines": task.guidelines,
            "criteria": list(task.criteria),
            "done": done,
            "total": len(plan),
            "revealed": self.store.is_revealed(task.id, grader),
        }

    def _plan(self, task: Task, grader: str) -> list[Showing]:
        """The grader's showings, less the items that others have judged often enough under an earlier list of graders."""
        key = (task.id, grader)
        if key not in self._plans:
            asked = task if self._overlap is None else replace(task, overlap=self._overlap)
            by_others = Counter(
                one.item for one in self.store.judgements(task.id) if one.grader not in self.graders and one.counts
            )
            plan = showings(asked, self.store.items(task.id), grader, self.graders)
            self._plans[key] = [one for one in plan if by_others[one.item] < asked.overlap]
        return self._plans[key]

    def open_showings(self, task: Task, grader: str) -> list[Showing]:
        """What the grader has not judged yet."""
        judged = self.store.judged(task.id, grader)
        return [one for one in self._plan(task, grader) if (one.item, one.is_repeat) not in judged]

    def _task(self, number: Any) -> Task:
        tasks = self.store.tasks()
        if type(number) is not int or not 0 <= number < len(tasks):
            raise BadData(f"no task {number!r}")
        return tasks[number]

    def view(self, grader: str, number: Any, showing: int | None = None) -> dict[str, Any]:
        """What to show of task ``number``: the showing asked for, else the first open one; none when the grader is done."""
        task = self._task(number)
        found: dict[str, Any] = {"task": number, **self._about(task, grader), "showing": None}
        plan, judged = self._plan(task, grader), self.store.judged(task.id, grader)
        if found["revealed"]:
            return found
        if showing is None:
            showing = next((n for n, one in enumerate(plan) if (one.item, one.is_repeat) not in judged), None)
        if showing is None:
            return found
        item = self.store.item(task.id, plan[showing].item)
        texts = {one.id: one.text for one in item.distinct}
        return {
            **found,
            "showing": showing,
            "prompt": [dict(zip(("role", "text"), message_text(one), strict=True)) for one in item.prompt],
            "answers": [texts[id] for id in plan[showing].order],
            "parts": [
                {"label": label, "text": text, "editable": bool(path)} for path, label, text in parts(item.row or {})
            ],
        }

    # ---- what is answered

    def vote(self, grader: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a vote and return the next view. Raises `BadData` for a vote that cannot be, `Unblinded` after the end."""
        task, showing = self._shown(grader, body)
        item = self.store.item(task.id, showing.item)
        self.store.judge(_judgement(task, item, showing, grader, body))
        return self.view(grader, body["task"])

    def undo(self, grader: str, number: Any) -> dict[str, Any]:
        """Take back the grader's newest vote on a task and show that item again."""
        task = self._task(number)
        self._blind(task, grader)
        taken = self.store.undo(task.id, grader)
        plan = self._plan(task, grader)
        places = {(one.item, one.is_repeat): place for place, one in enumerate(plan)}
        return self.view(grader, number, None if taken is None else places.get((taken.item, taken.is_repeat)))

    def _shown(self, grader: str, body: Mapping[str, Any]) -> tuple[Task, Showing]:
        unknown = sorted(set(body) - KEYS)
        if unknown:
            raise BadData(f"unknown key {unknown[0]}")
        task = self._task(body.get("task"))
        self._blind(task, grader)
        plan, number = self._plan(task, grader), body.get("showing")
        if type(number) is not int or not 0 <= number < len(plan):
            raise BadData(f"no showing {number!r}")
        return task, plan[number]

    def _blind(self, task: Task, grader: str) -> None:
        if self.store.is_revealed(task.id, grader):
            raise Unblinded("the models were revealed, so votes can no longer change")

    # ---- the end

    def summary(self, grader: str, number: Any) -> dict[str, Any]:
        """What the grader said, by model; from then on the votes stay. Raises `BadData` before the last showing is judged."""
        task = self._task(number)
        about = self._about(task, grader)
        if about["done"] < about["total"]:
            raise BadData(f"{about['done']} of {about['total']} are judged: the models are told at the end")
        self.store.reveal(task.id, grader)
        judged = self.store.judged(task.id, grader)
        said = list(judged.values())
        found = {
            "judged": len(said),
            "verdicts": dict(Counter(one.verdict for one in said)),
            "median_seconds": round(median(one.seconds for one in said), 1) if said else None,
        }
        return found if task.kind == "review" else {**found, **self._models(task, judged)}

    def _models(self, task: Task, judged: Mapping[tuple[str, bool], Judgement]) -> dict[str, Any]:
        """How often each model was best alone, best with others and not best in first showings; and what sides and repeats tell."""
        table: dict[str, Counter[str]] = {}
        firsts = [one for one in judged.values() if one.verdict == "ranked" and not one.is_repeat]
        for one in firsts:
            best = [id for id, rank in one.ranks.items() if rank == 1]
            for candidate in self.store.item(task.id, one.item).candidates:
                word = "lost" if candidate.id not in best else "won" if len(best) == 1 else "tied"
                table.setdefault(candidate.source, Counter())[word] += 1
        decided = [one for one in firsts if len(one.order) == 2 and set(one.ranks.values()) == {1, 2}]
        both = [
            (one, judged[item, False]) for (item, again), one in judged.items() if again and (item, False) in judged
        ]
        return {
            "models": [
                {"model": name, **{word: table[name][word] for word in ("won", "tied", "lost")}}
                for name in sorted(table)
            ],
            "left": {"of": len(decided), "left": sum(one.ranks[one.order[0]] == 1 for one in decided)},
            "repeats": {
                "of": len(both),
                "same": sum(one.verdict == two.verdict and one.ranks == two.ranks for one, two in both),
            },
        }


def _judgement(task: Task, item: Item, showing: Showing, grader: str, body: Mapping[str, Any]) -> Judgement:
    seconds = body.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:  # also NaN
        raise BadData("seconds: 0 or more is needed")
    for name in ("verdict", "note", "reason"):
        if not isinstance(body.get(name, ""), str):
            raise BadData(f"{name}: a text is needed")
    strength = body.get("strength")
    if strength is not None and type(strength) is not int:
        raise BadData("strength: a whole number is needed")
    return Judgement(
        task=task.id,
        item=item.id,
        grader=grader,
        verdict=body.get("verdict", ""),
        ranks=_ranks(body.get("ranks"), showing.order),
        order=showing.order,
        strength=strength,
        criteria=_criteria(body.get("criteria", {}), showing.order),
        note=body.get("note", ""),
        reason=body.get("reason", ""),
        edited=_edited(item, body.get("texts")),
        seconds=min(float(seconds), LONGEST_S),
        is_repeat=showing.is_repeat,
    )


def _ranks(given: Any, order: Sequence[str]) -> dict[str, int]:
    """Ranks by candidate id, from a list of ranks by place on the screen."""
    if given is None:
        return {}
    if not isinstance(given, list) or len(given) != len(order) or any(type(rank) is not int for rank in given):
        raise BadData(f"ranks: a list of {len(order)} whole numbers is needed")
    return dict(zip(order, given, strict=True))


def _criteria(given: Any, order: Sequence[str]) -> dict[str, str]:
    """The best answer's id by criterion, from its place on the screen; -1 is a tie."""
    if not isinstance(given, dict):
        raise BadData("criteria: an object is needed")
    places = {-1: "tie", **dict(enumerate(order))}
    for name, place in given.items():
        if type(place) is not int or place not in places:
            raise BadData(f"criteria: {name}: the place of an answer, or -1, is needed")
    return {name: places[place] for name, place in given.items()}


def _edited(item: Item, texts: Any) -> dict[str, Any] | None:
    """The item's row with ``texts`` in place of its editable parts, in their order."""
    if texts is None:
        return None
    paths = [path for path, _, _ in parts(item.row or {}) if path]
    if not isinstance(texts, list) or len(texts) != len(paths) or not all(isinstance(text, str) for text in texts):
        raise BadData(f"texts: a list of {len(paths)} texts is needed")
    row: dict[str, Any] = copy.deepcopy(dict(item.row or {}))
    for path, text in zip(paths, texts, strict=True):
        inner: Any = row
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = text
    if row == item.row:
        raise BadData("texts: nothing was changed")
    return row


def parts(row: Mapping[str, Any]) -> list[tuple[tuple[Any, ...], str, str]]:
    """What of a row is shown: path, label and text of each part. A path is empty where the part cannot be edited.

    Left out are ``id`` and ``meta``, which tell where a row is from.
    """
    found: list[tuple[tuple[Any, ...], str, str]] = []
    for name, value in row.items():
        if name in ("id", "meta"):
            continue
        if isinstance(value, list) and value and all(isinstance(one, dict) and "content" in one for one in value):
            for place, message in enumerate(value):
                label = str(message.get("role", place + 1)) if name in ("messages", "prompt") else name
                editable = isinstance(message["content"], str)
                found.append(((name, place, "content") if editable else (), label, _text(message["content"])))
                rest = {key: one for key, one in message.items() if key not in ("role", "content")}
                found += [((), f"{label}: {key}", _text(one)) for key, one in rest.items()]
        else:
            found.append(((name,) if isinstance(value, str) else (), name, _text(value)))
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def message_text(message: Mapping[str, Any]) -> tuple[str, str]:
    """The role of a message and all else that it says, tool calls too."""
    content = message.get("content")
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    texts = [*([] if content is None else [_text(content)]), *([_text(rest)] if rest else [])]
    return str(message.get("role", "")), "\n".join(texts)
