"""The questions of a review on the run's desk, and what was answered there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ftcli.core.rundir import serve_command
from ftcli.human.store import Store
from ftcli.human.tasks import Item, Judgement, Task, to_json
from ftcli.stages.review.config import ReviewConfig
from ftcli.stages.review.votes import with_checked_edit


def task_of(config: ReviewConfig, items: Sequence[Item], label: str) -> Task:
    """The question about ``items``. Its id follows from all that a reviewer sees, so the same question finds its answers again."""
    reasons = f"Whoever rejects a row says why: {', '.join(config.reasons)}, or in words of their own."
    task = Task(
        id="",
        kind="review",
        title=f"Review {len(items)} rows of {label}",
        guidelines=f"{config.guidelines}\n\n{reasons}".lstrip(),
        overlap=config.overlap,
        repeat_share=0,
        seed=config.seed,
        wanted=len(items) * config.overlap,
    )
    content = "\n".join([to_json(task), *map(to_json, items)])
    return replace(task, id=f"review-{hashlib.sha256(content.encode()).hexdigest()[:12]}")


def ask(path: Path, task: Task, items: Sequence[Item]) -> list[Judgement]:
    """Put ``task`` on the desk, where it may be already, and return what was said of ``items`` so far.

    What people said of the same rows in another task with the same guidelines counts too, e.g. before the sample was enlarged. It
    is entered into the new task when that is published, so that nobody is asked twice.
    """
    with closing(Store(path)) as store:
        is_new = all(one.id != task.id for one in store.tasks())
        store.publish(task, items)
        known = {item.id: item for item in items}
        elsewhere = list(_elsewhere(store, task, known))
        if is_new:
            store.judge_all(elsewhere)
        found = [*elsewhere, *store.judgements(task.id)]
    hint = f"judge it again: {serve_command(path)}"
    return [with_checked_edit(one, f"row {one.item}, judged by {one.grader}", known[one.item], hint) for one in found]


def _elsewhere(store: Store, task: Task, items: Mapping[str, Item]) -> Iterator[Judgement]:
    for other in store.tasks():
        if other.kind == "review" and other.id != task.id and other.guidelines == task.guidelines:
            same = {one.id for one in store.items(other.id) if one.id in items and one.row == items[one.id].row}
            for judgement in store.judgements(other.id):
                if judgement.item in same:
                    yield replace(judgement, task=task.id)
