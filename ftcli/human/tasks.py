"""What people are asked, and what they say: tasks, their items, and judgements. All of it is plain data that JSON can hold."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from ftcli.core.errors import BadData
from ftcli.data.rows import Message

Kind = Literal["rank", "review"]
Verdict = Literal["ranked", "both_bad", "skip", "accept", "edit", "reject"]
VERDICTS: Mapping[str, tuple[str, ...]] = {
    "rank": ("ranked", "both_bad", "skip"),
    "review": ("accept", "edit", "reject", "skip"),
}
"""What may be said in a task of each kind."""

MOST_CANDIDATES = 8
MOST_REPEATED = 1 / 3
STRENGTHS = range(1, 8)
"""How much better the best answer is: 1 barely, 7 by far."""
NOTE_CHARACTERS = 2000
GRADER = re.compile(r"[\w.-](?:[\w .-]{0,62}[\w.-])?")
"""What a grader may be called."""


def candidate_id(text: str) -> str:
    """16 hex digits of SHA-256 of ``text`` without the white space around it: answers that look the same share an id."""
    return hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Candidate:
    """An answer. ``source`` is the label of the model that gave it, which no grader is told."""

    id: str
    text: str
    source: str

    @classmethod
    def of(cls, text: str, source: str) -> Candidate:
        return cls(candidate_id(text), text, source)


@dataclass(frozen=True)
class Item:
    """One thing to judge: a prompt with its answers (rank), or a row (review). ``split`` is the part of the data it is from."""

    id: str
    prompt: list[Message]
    candidates: tuple[Candidate, ...] = ()
    row: Mapping[str, Any] | None = None
    split: str = "train"

    @property
    def distinct(self) -> tuple[Candidate, ...]:
        """The candidates that differ, in the order given: of several with the same text the first."""
        first: dict[str, Candidate] = {}
        for one in self.candidates:
            first.setdefault(one.id, one)
        return tuple(first.values())

    @property
    def shown(self) -> bool:
        """Whether there is something to ask: in a rank task at least two answers that differ. Others are ties by themselves."""
        return self.row is not None or len(self.distinct) > 1


@dataclass(frozen=True, kw_only=True)
class Task:
    """What graders are asked, of which kind, and how often.

    ``wanted`` counts judgements that stand, skips and repeats not among them. Each item goes to ``overlap`` graders (to all, where
    there are fewer), and ``repeat_share`` of a grader's items come a second time with the sides swapped (at most a third do).
    """

    id: str
    kind: Kind
    title: str
    guidelines: str = ""
    criteria: tuple[str, ...] = ()
    overlap: int = 1
    repeat_share: float = 0.1
    seed: int = 0
    wanted: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"no such kind of task: {self.kind}")
        if self.overlap < 1 or self.wanted < 0 or not 0 <= self.repeat_share <= MOST_REPEATED:
            raise ValueError(f"{self}: overlap from 1, wanted from 0 and repeat_share from 0 to 1/3 are needed")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one grader says of one showing of an item.

    ``ranks`` gives each candidate id its rank: 1 is the best, equal ranks are ties. ``order`` has the candidate ids as shown,
    left to right. ``criteria`` gives each criterion the id of the answer that is best by it, or tie. ``edited`` is the whole
    row with its new texts. ``seconds`` is 0 where nobody measured them (a sheet). ``at`` is a UTC time in ISO form; the store
    fills an empty one.
    """

    task: str
    item: str
    grader: str
    verdict: Verdict
    ranks: Mapping[str, int] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    strength: int | None = None
    criteria: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    reason: str = ""
    edited: Mapping[str, Any] | None = None
    seconds: float = 0.0
    is_repeat: bool = False
    at: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is one of those that a task wants."""
        return not self.is_repeat and self.verdict != "skip"


FIELDS = {one.name: one for one in fields(Judgement)}
NEEDED = ("task", "item", "grader", "verdict")
TEXTS = ("task", "item", "grader", "verdict", "note", "reason", "at")


def to_json(value: Task | Item | Judgement) -> str:
    """One line of JSON; equal values give equal lines."""
    return json.dumps(asdict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def task_from(record: Mapping[str, Any]) -> Task:
    return Task(**{**record, "criteria": tuple(record["criteria"])})


def item_from(record: Mapping[str, Any]) -> Item:
    return Item(**{**record, "candidates": tuple(Candidate(**one) for one in record["candidates"])})


def judgement_from(record: Mapping[str, Any]) -> Judgement:
    """A judgement from what JSON gave. Raises `BadData` for keys or types that are not a judgement's."""
    unknown = [name for name in record if name not in FIELDS]
    if unknown:
        raise BadData(f"unknown key {unknown[0]}", f"the keys are {', '.join(FIELDS)}")
    missing = [name for name in NEEDED if name not in record]
    if missing:
        raise BadData(f"no {missing[0]}")
    for name in TEXTS:
        if not isinstance(record.get(name, ""), str):
            raise BadData(f"{name}: a text is needed")
    _check_types(record)
    return Judgement(**{**record, "order": tuple(record.get("order", ()))})


def _check_types(record: Mapping[str, Any]) -> None:
    seconds, strength = record.get("seconds", 0.0), record.get("strength")
    ranks, order, criteria = record.get("ranks", {}), record.get("order", ()), record.get("criteria", {})
    if not isinstance(ranks, dict) or not all(type(rank) is int for rank in ranks.values()):
        raise BadData("ranks: an object of whole numbers by answer is needed")
    if not isinstance(order, list | tuple) or not all(isinstance(id, str) for id in order):
        raise BadData("order: a list of answers is needed")
    if not isinstance(criteria, dict) or not all(isinstance(value, str) for value in criteria.values()):
        raise BadData("criteria: an object of texts is needed")
    if strength is not None and type(strength) is not int:
        raise BadData("strength: a whole number is needed")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise BadData("seconds: a number is needed")
    if not isinstance(record.get("is_repeat", False), bool):
        raise BadData("is_repeat: true or false is needed")
    if not isinstance(record.get("edited"), dict | None):
        raise BadData("edited: a row is needed")


def check(judgement: Judgement, task: Task, item: Item) -> None:
    """Raise `BadData` unless ``judgement`` is one that ``task`` can take of ``item``."""
    if not GRADER.fullmatch(judgement.grader):
        raise BadData(
            f"grader {judgement.grader!r}: 1 to 64 letters, digits, points, dashes and inner spaces are needed"
        )
    if judgement.verdict not in VERDICTS[task.kind]:
        raise BadData(f"verdict {judgement.verdict!r}: a {task.kind} task takes {', '.join(VERDICTS[task.kind])}")
    if not math.isfinite(judgement.seconds) or judgement.seconds < 0:
        raise BadData(f"seconds {judgement.seconds}: 0 or more is needed")
    if judgement.strength is not None and judgement.strength not in STRENGTHS:
        raise BadData(f"strength {judgement.strength}: {STRENGTHS[0]} to {STRENGTHS[-1]} is needed")
    if max(len(judgement.note), len(judgement.reason)) > NOTE_CHARACTERS:
        raise BadData(f"a note or reason has more than {NOTE_CHARACTERS} characters")
    unknown = [name for name in judgement.criteria if name not in task.criteria]
    if unknown:
        raise BadData(f"no such criterion: {unknown[0]}")
    ids = {one.id for one in item.distinct}
    if any(value not in {*ids, "tie"} for value in judgement.criteria.values()):
        raise BadData("criteria: the id of an answer of this item, or tie, is needed")
    if (judgement.edited is not None) != (judgement.verdict == "edit"):
        raise BadData("an edited row goes with the verdict edit, and with no other")
    _check_ranks(judgement, item, ids)


def _check_ranks(judgement: Judgement, item: Item, ids: set[str]) -> None:
    if item.row is None and len(ids) < 2:
        raise BadData("its answers are all the same: it is a tie without being asked")
    if len(judgement.order) != len(ids) or set(judgement.order) != ids:
        raise BadData("order: every answer of the item once is needed")
    if judgement.verdict != "ranked":
        if judgement.ranks:
            raise BadData(f"ranks do not go with the verdict {judgement.verdict}")
    elif set(judgement.ranks) != ids:
        raise BadData("ranks: a rank for every answer of the item is needed, and for no other")
    elif min(judgement.ranks.values()) != 1 or max(judgement.ranks.values()) > len(ids):
        raise BadData(f"ranks: from 1, the best, to at most {len(ids)}")
