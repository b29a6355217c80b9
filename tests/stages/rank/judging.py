"""Samples as the sample stage writes them, and graders who judge at the desk as the plan shows them the items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import Row, write_jsonl
from ftcli.human.plan import showings
from ftcli.human.store import Store
from ftcli.human.tasks import Candidate, Item, Judgement, Verdict
from tests.conftest import artifact

Choice = Callable[[Item, Sequence[str]], tuple[Verdict, Mapping[str, int]]]
"""What a grader says of an item whose candidates are shown in this order: verdict and ranks."""


def sample_row(number: int, answers: Sequence[tuple[str, str]], split: str = "train") -> Row:
    """A line of samples.jsonl; ``answers`` are (model, text), and a model without a name is left out."""
    return {
        "id": f"row-{number}",
        "split": split,
        "prompt": [{"role": "user", "content": f"Question {number}?"}],
        "reference": None,
        "answers": [
            {"text": text, "tokens": 3, "finish_reason": "stop"} | ({"model": model} if model else {})
            for model, text in answers
        ],
    }


def samples(folder: Path, rows: Sequence[Row], label: str = "sample") -> Artifact:
    folder.mkdir(parents=True)
    write_jsonl(folder / "samples.jsonl", rows)
    return artifact(Kind.SAMPLES, folder, label=label)


def two_models(folder: Path, splits: Sequence[str]) -> Artifact:
    """A prompt for each of ``splits``, answered by ``base`` and by ``tuned``."""
    return samples(
        folder,
        [
            sample_row(number, [("base", f"bad answer {number}"), ("tuned", f"good answer {number}")], split)
            for number, split in enumerate(splits)
        ],
    )


def at_desk(desk: Path, choose: Choice, graders: Sequence[str] = ("ann",), limit: int | None = None) -> None:
    """Each grader judges the first ``limit`` items of the newest task."""
    store = Store(desk)
    task = store.tasks()[-1]
    items = {item.id: item for item in store.items(task.id)}
    for grader in graders:
        for showing in showings(task, list(items.values()), grader, graders)[:limit]:
            verdict, ranks = choose(items[showing.item], showing.order)
            store.judge(
                Judgement(
                    task=task.id,
                    item=showing.item,
                    grader=grader,
                    verdict=verdict,
                    ranks=ranks,
                    order=showing.order,
                    seconds=5.0,
                    is_repeat=showing.is_repeat,
                )
            )
    store.close()


def by_text(*words: str) -> Choice:
    """Prefers answers by the first of ``words`` that they begin with; others come last, as equals."""

    def choose(item: Item, order: Sequence[str]) -> tuple[Verdict, Mapping[str, int]]:
        levels = {one.id: [one.text.startswith(word) for word in (*words, "")].index(True) for one in item.distinct}
        places = sorted(set(levels.values()))
        return "ranked", {id: places.index(level) + 1 for id, level in levels.items()}

    return choose


def verdict(name: Verdict) -> Choice:
    return lambda item, order: (name, {})


def item_of(*texts: str, split: str = "train") -> Item:
    """An item whose answers come from models named a, b, c, ..."""
    candidates = tuple(Candidate.of(text, "abcdefgh"[place]) for place, text in enumerate(texts))
    return Item("item", [{"role": "user", "content": "Q"}], candidates, split=split)
