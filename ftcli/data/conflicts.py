"""Rows of one prompt that contradict each other.

* hard:  short answers from a small vocabulary, as in classification, of which two differ.
* soft:  free answers that differ. Often legal, so their likeness is reported: the least ROUGE-L F1 of any two, which is
  2·LCS/(m+n) of their words and so Indel similarity (rapidfuzz, sixty times faster than rouge_score).
* cycle: preferences that run in a circle (`ftcli.data.preference_cycles`).
* label: one completion labelled both good and bad.

A policy says which rows to drop; after any but ``report`` the others of a hard, cycle or label conflict agree. Which row is
first goes by id, so the order of the rows decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from ftcli.data.dedup import normalise
from ftcli.data.features import words
from ftcli.data.preference_cycles import Policy, circular_edges, contradicting, preferences, said_by
from ftcli.data.rows import Row

Kind = Literal["hard", "soft", "cycle", "label"]

LABEL_WORDS = 5
LABEL_VOCABULARY = 50
COMPARED_ANSWERS = 100
SHOWN = 20
SHOWN_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers of a conflict and the rows that have it."""

    text: str
    rows: tuple[Row, ...]
    label: bool | None = None

    def to_json(self) -> dict[str, Any]:
        shown = {"text": self.text[:SHOWN_CHARACTERS], "count": len(self.rows), "rows": _places(self.rows[:SHOWN])}
        return shown if self.label is None else {**shown, "label": self.label}


@dataclass(frozen=True, slots=True)
class Conflict:
    """``answers`` begin with the most frequent; ``drop`` holds positions in the rows judged, ascending."""

    kind: Kind
    prompt: str
    answers: tuple[Answer, ...]
    drop: tuple[int, ...]
    action: str
    entropy: float | None = None
    """Of a hard conflict, in bits."""
    min_similarity: float | None = None
    """Of a soft conflict, 0 to 1."""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "prompt": self.prompt[:SHOWN_CHARACTERS],
            "distinct": len(self.answers),
            "answers": [answer.to_json() for answer in self.answers[:SHOWN]],
            "entropy": _rounded(self.entropy),
            "min_similarity": _rounded(self.min_similarity),
            "action": self.action,
            "rows_dropped": len(self.drop),
        }


def judge(rows: Sequence[Row], *, label_vocabulary: int, policy: Policy = "report") -> Conflict | None:
    """The conflict among ``rows``, all of one type and with one prompt, or None.

    ``label_vocabulary`` is the number of different `label_of` in the whole data set: up to `LABEL_VOCABULARY`, short answers are
    taken for labels. ``drop_minority`` keeps the answer that most rows have and, where no answer has most, none; it leaves soft
    conflicts alone. ``keep_first`` keeps what agrees with the row of the smallest id.
    """
    if len(rows) > 1 and "messages" in rows[0]:
        return _judge_answers(rows, label_vocabulary, policy)
    if "chosen" in rows[0] or "candidates" in rows[0]:
        return _judge_preferences(rows, policy)
    if "completion" in rows[0]:
        return _judge_labels(rows, policy)
    return None


def label_of(text: str) -> str | None:
    """The normalised text of an answer of at most `LABEL_WORDS` words, without a full stop at its end; None if longer."""
    short = normalise(text)
    if not short or max(len(short.split(" ")), len(words(text))) > LABEL_WORDS:
        return None
    return short.rstrip(".") or short


def may_be_label(row: Row) -> bool:
    """Whether the last answer is short enough for a `label_of`; only messages rows have labels."""
    return "messages" in row and len(row["messages"][-1]["content"].split(None, LABEL_WORDS)) <= LABEL_WORDS


def answer_text(row: Row) -> str:
    """What the last assistant message of a messages row says, tool calls included."""
    return said_by(row["messages"][-1:])


def possible_mislabels(pairs: Iterable[tuple[Row, Row, float]], *, label_vocabulary: int) -> list[dict[str, Any]]:
    """Of ``pairs`` of messages rows with nearly the same prompt and their Jaccard similarity: those with different labels.

    The most similar pair comes first. The pairs come from near-duplicate search, whose number guard has passed them.
    """
    if label_vocabulary > LABEL_VOCABULARY:
        return []
    found = []
    for one, other, jaccard in pairs:
        sides = sorted((one, other), key=lambda row: str(row["id"]))
        labels = [label_of(answer_text(row)) for row in sides]
        if None not in labels and labels[0] != labels[1]:
            prompts = [said_by(row["messages"][:-1])[:SHOWN_CHARACTERS] for row in sides]
            ids = [row["id"] for row in sides]
            found.append((-jaccard, ids, {"prompts": prompts, "labels": labels, "rows": _places(sides)}))
    found.sort(key=lambda item: item[:2])
    return [{"jaccard": round(-negative, 6), **shown} for negative, _, shown in found]


def _judge_answers(rows: Sequence[Row], label_vocabulary: int, policy: Policy) -> Conflict | None:
    texts = [answer_text(row) for row in rows]
    labels = [label_of(text) for text in texts]
    hard = label_vocabulary <= LABEL_VOCABULARY and None not in labels
    groups = _grouped(labels if hard else [normalise(text) for text in texts])
    if len(groups) < 2:
        return None
    drop = [] if policy == "drop_minority" and not hard else _losers(groups, rows, policy)
    answers = _ranked(Answer(texts[_first(held, rows)], _in_order(held, rows)) for held in groups.values())
    return Conflict(
        kind="hard" if hard else "soft",
        prompt=_prompt(rows),
        answers=answers,
        drop=tuple(drop),
        action=policy if drop else "report",
        entropy=_entropy([len(answer.rows) for answer in answers]) if hard else None,
        min_similarity=None if hard else _least_similarity([answer.text for answer in answers]),
    )


def _judge_labels(rows: Sequence[Row], policy: Policy) -> Conflict | None:
    drop: list[int] = []
    answers: list[Answer] = []
    for text, held in _grouped([said_by(row["completion"]) for row in rows]).items():
        sides = {label: [index for index in held if rows[index]["label"] is label] for label in (True, False)}
        if all(sides.values()):
            drop += _losers(sides, rows, policy)
            answers += [Answer(text, _in_order(side, rows), label) for label, side in sides.items()]
    if not answers:
        return None
    return Conflict("label", _prompt(rows), _ranked(answers), tuple(sorted(drop)), policy if drop else "report")


def _judge_preferences(rows: Sequence[Row], policy: Policy) -> Conflict | None:
    edges = [preferences(row) for row in rows]
    circular = circular_edges(edges)
    if not circular:
        return None
    drop = contradicting(edges, [str(row["id"]) for row in rows], policy)
    held: dict[str, set[int]] = {}
    for index, own in enumerate(edges):
        for text in {text for edge in own & circular for text in edge}:
            held.setdefault(text, set()).add(index)
    answers = _ranked(Answer(text, _in_order(found, rows)) for text, found in held.items())
    return Conflict("cycle", _prompt(rows), answers, tuple(drop), policy if drop else "report")


def _losers(groups: Mapping[Any, Sequence[int]], rows: Sequence[Row], policy: Policy) -> list[int]:
    """The positions that ``policy`` drops of rows grouped by their answer."""
    every = sorted(index for held in groups.values() for index in held)
    if policy == "report":
        return []
    if policy == "drop_all":
        return every
    if policy == "keep_first":
        winner = _first(every, rows)
        kept = next(held for held in groups.values() if winner in held)
    else:
        most = max(len(held) for held in groups.values())
        largest = [held for held in groups.values() if len(held) == most]
        kept = largest[0] if len(largest) == 1 else []
    return sorted(set(every) - set(kept))


def _prompt(rows: Sequence[Row]) -> str:
    """The prompt of the first row; case and white space of the others' may differ."""
    first = rows[_first(range(len(rows)), rows)]
    return said_by(first["messages"][:-1] if "messages" in first else first["prompt"])


def _grouped(keys: Sequence[Hashable]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return groups


def _first(held: Iterable[int], rows: Sequence[Row]) -> int:
    return min(held, key=lambda index: str(rows[index]["id"]))


def _in_order(held: Iterable[int], rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(rows[index] for index in sorted(held, key=lambda index: str(rows[index]["id"])))


def _ranked(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    return tuple(sorted(answers, key=lambda answer: (-len(answer.rows), answer.text, answer.label is False)))


def _entropy(counts: Sequence[int]) -> float:
    return -sum(count / sum(counts) * math.log2(count / sum(counts)) for count in counts)


def _least_similarity(texts: Sequence[str]) -> float:
    """The least Indel similarity of the words of any two of the first `COMPARED_ANSWERS` texts."""
    split = [words(text) for text in texts[:COMPARED_ANSWERS]]
    number = {word: index for index, word in enumerate(dict.fromkeys(word for text in split for word in text))}
    coded = ["".join(chr(0xE000 + number[word]) for word in text) for text in split]  # a character a word
    return float(process.cdist(coded, coded, scorer=Indel.normalized_similarity, dtype=np.float64).min())


def _places(rows: Collection[Row]) -> list[dict[str, Any]]:
    return [{"file": row["meta"]["file"], "line": row["meta"]["line"]} for row in rows]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
