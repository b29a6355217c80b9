"""Whether what is evaluated was trained on: held-out rows against the training rows of each model, found by its lineage.

A prompt, or a plain text, that was trained on word for word is an error, since figures on it tell what was learnt by heart. A
row that is nearly in the training data is said, and figures are given without it as well: one training row has half of its word
3-grams, or a passage of 13 of its words (`ftcli.data.contamination`, by which prep drops rows). Of rows with every sixth word
replaced this finds all, where half of the 8-grams or a 13-gram finds a fifth of those of 20 words. System messages do not
count, or all rows of one application would be alike. Only the evaluated rows are held in memory; training rows go by.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact
from ftcli.data.contamination import EvaluationIndex
from ftcli.data.dedup import normalise, whole_text
from ftcli.data.rows import Message, Row, prompt_of, split_file, stream_rows
from ftcli.data.texts import said
from ftcli.stages.eval.lineage import TrainingData, trained_on

BLOCK_ROWS = 1000
SHOWN = 5
SHOWN_CHARS = 200


@dataclass(frozen=True)
class Leak:
    """The training row, with the line of its file, that an evaluated row repeats most of. ``overlap`` is the share of the
    evaluated row's own word 3-grams that it has, 1 for the same prompt."""

    train_id: str
    train_file: Path
    line: int
    overlap: float
    text: str
    """What the training row says."""


@dataclass(frozen=True)
class Leakage:
    """What was found: evaluated rows by id, those with a trained prompt and those that are only near."""

    checked: tuple[Mapping[str, Any], ...]
    """For each model and data folder that it was trained on: ``label``, ``ref``, and how many ``rows`` were compared, of which
    evaluated rows ``exact`` and ``near``."""
    exact: Mapping[str, Leak]
    near: Mapping[str, Leak]
    unknown: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    """The evaluated rows' own texts, of those found."""

    @property
    def touched(self) -> frozenset[str]:
        """The rows that figures on clean rows leave out."""
        return frozenset({*self.exact, *self.near})

    def to_json(self) -> dict[str, Any]:
        """The entry ``leakage`` of metrics.json."""
        return {
            "checked": list(self.checked),
            "exact": len(self.exact),
            "near": len(self.near),
            "examples": [
                {
                    "id": id,
                    "train_id": leak.train_id,
                    "overlap": round(leak.overlap, 4),
                    "text": _passage(self.texts[id], leak.text),
                }
                for id, leak in islice(_worst_first({**self.near, **self.exact}), SHOWN)
            ],
            "unknown": list(self.unknown),
        }


def check_leakage(
    rows: Sequence[Row],
    file: Path,
    models: Sequence[Artifact],
    *,
    allow_leak: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Leakage:
    """Compare ``rows``, read from ``file``, with the train splits of all that ``models`` were trained on.

    Raises `UsageError` for rows whose prompt was trained on, unless ``allow_leak``; what is near, or cannot be known, is noted.
    """
    sets: dict[str, TrainingData] = {}
    labels: dict[str, list[str]] = {}
    unknown: list[str] = []
    for model in models:
        found, reasons = trained_on(model)
        unknown += [f"{model.label}: {reason}" for reason in reasons]
        for digest, data in found.items():
            sets[digest] = data
            labels.setdefault(digest, []).append(model.label)
    held_out = _HeldOut(rows)
    checked = []
    for digest, data in sets.items():
        counts = held_out.compare(split_file(data.path, "train"))
        checked += [{"label": label, "ref": data.ref, **counts} for label in labels[digest]]
    leakage = held_out.leakage(tuple(checked), tuple(unknown))
    what = "text" if any("text" in row for row in rows) else "prompt"
    if leakage.exact and not allow_leak:
        raise UsageError(
            _message(leakage, file, len(rows), what),
            "evaluate rows that were not trained on (`ftcli prep` splits so that no prompt is in two splits), "
            "or set allow_leak to go on all the same",
        )
    if leakage.touched:
        rest = len(rows) - len(leakage.touched)
        clean = f"figures are also given for the other {rest}" if rest else "no other row is left to measure"
        note(
            f"leakage: {len(leakage.exact)} of {len(rows)} rows have a {what} that was trained on, {len(leakage.near)} are "
            f"nearly in the training data; {clean}"
        )
    for text in unknown:
        note(f"leakage not checked: {text}")
    return leakage


class _HeldOut:
    """The evaluated rows by prompt and by word n-grams, and the worst leak of each."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.exact: dict[str, Leak] = {}
        self.near: dict[str, Leak] = {}
        self._asked: dict[str, list[str]] = {}
        texts: dict[str, list[str]] = {}
        for row in rows:
            if asked := _folded(row["text"]) if "text" in row else _question(prompt_of(row)):
                self._asked.setdefault(asked, []).append(row["id"])
            texts.setdefault(_folded(whole_text(row)), []).append(row["id"])
        self._ids = list(texts.values())
        self._index = EvaluationIndex.of(list(texts))

    def compare(self, file: Path) -> dict[str, int]:
        """Look for the evaluated rows in the training rows of ``file``; return how many ``rows`` these are, and of how many
        evaluated rows they have the prompt (``exact``) or are only ``near``."""
        rows, count = stream_rows(file), 0
        exact, near = set[str](), set[str]()
        while block := list(islice(rows, BLOCK_ROWS)):
            exact |= self._compare_prompts(file, block, count)
            near |= self._compare_texts(file, block, count)
            count += len(block)
        return {"rows": count, "exact": len(exact), "near": len(near - exact)}

    def _compare_prompts(self, file: Path, block: list[Row], before: int) -> set[str]:
        found = set[str]()
        for line, row in enumerate(block, start=before + 1):
            for asked in _questions(row):
                for id in self._asked.get(asked, ()):
                    self.exact.setdefault(id, Leak(row["id"], file, line, 1.0, whole_text(row)))
                    found.add(id)
        return found

    def _compare_texts(self, file: Path, block: list[Row], before: int) -> set[str]:
        pairs = self._index.overlaps([_folded(whole_text(row)) for row in block])
        found = set[str]()
        for place, item, share in zip(pairs.row.tolist(), pairs.item.tolist(), pairs.containment.tolist(), strict=True):
            for id in self._ids[item]:
                if id not in self.near or self.near[id].overlap < share:
                    self.near[id] = Leak(block[place]["id"], file, before + place + 1, share, whole_text(block[place]))
                found.add(id)
        return found

    def leakage(self, checked: tuple[Mapping[str, Any], ...], unknown: tuple[str, ...]) -> Leakage:
        order = [row["id"] for row in self.rows]
        exact = {id: self.exact[id] for id in order if id in self.exact}
        near = {id: self.near[id] for id in order if id in self.near and id not in exact}
        texts = {row["id"]: whole_text(row) for row in self.rows if row["id"] in exact or row["id"] in near}
        return Leakage(checked, exact, near, unknown, texts)


def _questions(row: Row) -> Iterator[str]:
    """The prompts that a training row has an answer to, each of which is trained on: each turn of a conversation is one. Of plain
    text, all of it."""
    if "messages" in row:
        for place, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                yield _question(row["messages"][:place])
    elif "prompt" in row:
        yield _question(row["prompt"])
    elif "text" in row:
        yield _folded(row["text"])


def _question(messages: Sequence[Message]) -> str:
    """What people and tools say in a prompt, or where they say nothing the system; empty if nobody does."""
    heard = [message for message in messages if message["role"] not in ("system", "assistant")]
    return _folded("\n".join(said(message) for message in heard or messages))


def _folded(text: str) -> str:
    """``text`` without differences of case, white space, quotation marks and compatibility forms, such as of ligatures."""
    return normalise(unicodedata.normalize("NFKC", text))


def _worst_first(leaks: Mapping[str, Leak]) -> Iterator[tuple[str, Leak]]:
    yield from sorted(leaks.items(), key=lambda item: -item[1].overlap)


def _passage(held_out: str, trained: str) -> str:
    """The longest run of words that both texts have."""
    one, other = _folded(held_out).split(), _folded(trained).split()
    found = SequenceMatcher(None, one, other, autojunk=False).find_longest_match()
    text = " ".join(one[found.a : found.a + found.size])
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "\u2026"


def _message(leakage: Leakage, file: Path, rows: int, what: str) -> str:
    lines = {row.get("id"): line for line, row in enumerate(stream_rows(file), start=1)}
    shown = [
        f"{id} ({file}:{lines[id]}, trained on as {leak.train_file}:{leak.line})"
        for id, leak in islice(leakage.exact.items(), 3)
    ]
    more = f" and {len(leakage.exact) - 3} more" if len(leakage.exact) > 3 else ""
    trained = ", ".join(dict.fromkeys(str(item["label"]) for item in leakage.checked if item["exact"]))
    return f"{len(leakage.exact)} of {rows} rows have a {what} that {trained} was trained on: {', '.join(shown)}{more}"
