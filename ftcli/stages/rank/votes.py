"""The judgements there are: of the desk, and of a file that stands in for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftcli.core.errors import BadData, FtcliError
from ftcli.human.store import Store
from ftcli.human.tasks import Item, Judgement, Task, check, judgement_from


def standing(task: Task, items: Sequence[Item], votes: Path | None, desk: Path | None) -> list[Judgement]:
    """What stands of ``items``, one judgement for each grader and showing: the newest, and of equally new ones the desk's."""
    found: dict[tuple[str, str, bool], Judgement] = {}
    known = {item.id: item for item in items if item.shown}
    given = [*(read_votes(votes, task, known) if votes else ()), *(_of_desk(desk, task, known) if desk else ())]
    for one in given:
        key = (one.grader, one.item, one.is_repeat)
        if key not in found or found[key].at <= one.at:
            found[key] = one
    return list(found.values())


def read_votes(path: Path, task: Task, items: Mapping[str, Item]) -> list[Judgement]:
    """The judgements of a JSONL file, whichever task they were made in.

    Raises `BadData` naming file and line for what is no judgement or one of another item.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = _object(line)
            judgement = replace(judgement_from(record), task=task.id)
            if judgement.item not in items:
                raise BadData(
                    f"item {judgement.item!r} is not among the {len(items)} that are asked about",
                    "votes fit the samples, seed and answers_per_prompt that they were made with",
                )
            check(judgement, task, items[judgement.item])
        except FtcliError as error:
            raise BadData(f"{path}:{number}: {error.message}", error.hint) from None
        found.append(judgement)
    return found


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadData(f"no JSON: {error}", "a votes file has one judgement a line, as the desk exports them") from None
    if not isinstance(value, dict):
        raise BadData("a JSON object is needed", "a votes file has one judgement a line, as the desk exports them")
    return value


def _of_desk(desk: Path, task: Task, items: Mapping[str, Item]) -> Iterable[Judgement]:
    """Of all tasks that ask the same of an item (guidelines and criteria): with another overlap or more prompts the task is a new
    one, and what was said before still counts."""
    if not desk.exists():
        return
    store = Store(desk)
    try:
        for other in store.tasks():
            if other.kind == "rank" and (other.guidelines, other.criteria) == (task.guidelines, task.criteria):
                for one in store.judgements(other.id):
                    if one.item in items:
                        yield replace(one, task=task.id)
    finally:
        store.close()


def publish(desk: Path, task: Task, items: Sequence[Item]) -> None:
    """Put the questions on the desk, where they may lie already."""
    store = Store(desk)
    try:
        store.publish(task, items)
    finally:
        store.close()
