"""What the teacher will be asked: which seeds, passages and attributes go into which request. Only seed and number decide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, product
from math import lcm
from typing import Any

from ftcli.data.rows import Message, Row, prompt_of, reference_of, uses_tools
from ftcli.data.split import draws
from ftcli.data.synthetic import Exchange, Form, Instruction, Quoted, Worse
from ftcli.stages.synth.config import Mode, SynthConfig
from ftcli.stages.synth.prompts import OPERATORS, ask, shown_examples

FORM_OF: dict[Mode, type[Form]] = {
    "self_instruct": Exchange,
    "evolve": Exchange,
    "from_documents": Quoted,
    "augment": Instruction,
    "preferences": Worse,
}
SPACE = re.compile(r"\s*")
NEEDS_ANSWER: tuple[Mode, ...] = ("self_instruct", "augment", "preferences")


@dataclass(frozen=True)
class Exemplar:
    """A row that a request is about. ``before`` are its system messages, ``seeds`` the ids of the seeds that it goes back to: its
    own if it is one."""

    id: str
    request: str
    answer: str | None
    before: tuple[Message, ...]
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class Passage:
    """``text`` begins at character ``start`` of the document."""

    document: str
    start: int
    text: str


@dataclass(frozen=True)
class Ask:
    """One request for one row. ``depth`` is 0 except for evolve, where it counts from 1."""

    number: int
    template: str
    form: type[Form]
    messages: list[Message]
    exemplars: tuple[Exemplar, ...] = ()
    passage: Passage | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    depth: int = 0

    @property
    def seed_ids(self) -> list[str]:
        return list(dict.fromkeys(seed for item in self.exemplars for seed in item.seeds))


def exemplar_of(row: Row, seeds: tuple[str, ...] = ()) -> Exemplar | None:
    """``row`` as something to ask about; None for conversations of several turns, tools, and rows that ask nothing."""
    if "text" in row or uses_tools(row):
        return None
    *before, last = prompt_of(row)
    if last["role"] != "user" or any(message["role"] != "system" for message in before):
        return None
    return Exemplar(row["id"], last["content"], reference_of(row), tuple(before), seeds or (row["id"],))


def passages_of(row: Row, limit: int) -> Iterator[Passage]:
    """A text row in passages of at most ``limit`` characters, cut between paragraphs, else lines, else words, where it can be."""
    text, start = row["text"], 0
    while start < len(text):
        start = SPACE.match(text, start).end()  # type: ignore[union-attr]  # it matches no space too
        end = start + limit
        if end < len(text):
            cuts = (text.rfind(mark, start + limit // 2, end) for mark in ("\n\n", "\n", " "))
            end = next((cut for cut in cuts if cut > 0), end)
        found = text[start:end].strip()
        if found:
            yield Passage(row["id"], start, found)
        start = end


def plan(config: SynthConfig, exemplars: Sequence[Exemplar], passages: Sequence[Passage]) -> list[Ask]:
    """All requests of a mode other than evolve, or of its first round."""
    if config.mode == "evolve":
        return plan_round(config, exemplars, 1, 0)
    wanted = _combinations(config)
    if config.mode == "from_documents":
        order = islice(_cycled(passages, config.seed), config.requests)
        return [
            _ask(
                config,
                n,
                config.mode,
                wanted[turn_of(n, len(passages), len(wanted))],
                {"passage": item.text},
                passage=item,
            )
            for n, item in enumerate(order)
        ]
    is_group = config.mode == "self_instruct"
    groups = _groups(exemplars, config.examples if is_group else 1, config.seed)
    count = 1 if is_group else len(exemplars)
    return [
        _ask(
            config, n, config.mode, wanted[turn_of(n, count, len(wanted))], _parts(config.mode, items), exemplars=items
        )
        for n, items in enumerate(islice(groups, config.requests))
    ]


def plan_round(config: SynthConfig, parents: Sequence[Exemplar], depth: int, first: int) -> list[Ask]:
    """The requests of round ``depth`` of evolve, numbered from ``first``: its share, so that all rounds together make all."""
    share = config.requests // config.depth + (depth <= config.requests % config.depth)
    choices = list(product(_combinations(config), OPERATORS))
    asks = []
    for place, item in enumerate(islice(_cycled(parents, config.seed), share)):
        attributes, operator = choices[turn_of(place, len(parents), len(choices))]
        parts = {"request": item.request}
        asks.append(
            _ask(config, first + place, f"evolve/{operator}", attributes, parts, exemplars=(item,), depth=depth)
        )
    return asks


def _ask(
    config: SynthConfig, number: int, template: str, attributes: dict[str, str], parts: dict[str, str], **more: Any
) -> Ask:
    form = FORM_OF[config.mode]
    return Ask(number, template, form, ask(template, form, attributes, parts), attributes=attributes, **more)


def _parts(mode: Mode, items: Sequence[Exemplar]) -> dict[str, str]:
    if mode == "self_instruct":
        pairs = [(item.request, item.answer or "") for item in items]
        return {"count": str(len(items)), "examples": shown_examples(pairs)}
    return {"request": items[0].request, "answer": items[0].answer or ""}


def _combinations(config: SynthConfig) -> list[dict[str, str]]:
    names = list(config.attributes)
    return [dict(zip(names, values, strict=True)) for values in product(*config.attributes.values())]


def turn_of(n: int, items: int, choices: int) -> int:
    """The choice of request ``n`` when ``items`` take turns too: in order, shifted by one whenever both begin anew together, so
    that in ``items * choices`` requests each item meets each choice."""
    return (n + n // lcm(items, choices)) % choices


def _cycled(items: Sequence[Any], seed: int) -> Iterator[Any]:
    """The items in one drawn order, again and again."""
    order = draws(seed, "items", map(str, range(len(items)))).argsort(kind="stable").tolist()
    while order:
        yield from (items[place] for place in order)


def _groups(items: Sequence[Exemplar], size: int, seed: int) -> Iterator[tuple[Exemplar, ...]]:
    """``size`` different items at a time (fewer if there are no more), each used as often as any other. One at a time they come in
    one order again and again, several at a time each round has an order of its own, so that other items meet."""
    size = min(size, len(items))
    if size == 1:
        yield from ((item,) for item in _cycled(items, seed))
    waiting: list[int] = []
    for turn in count():
        drawn = draws(seed, f"seeds/{turn}", map(str, range(len(items)))).argsort(kind="stable").tolist()
        waiting += sorted(drawn, key=waiting.__contains__)  # those that wait already come last, in another group
        while len(waiting) >= size:
            yield tuple(items[place] for place in waiting[:size])
            del waiting[:size]
