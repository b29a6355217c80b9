"""The shipped suite of general ability: what a model could do before it was tuned, and what of that it has forgotten.

Six kinds of items, all our own: facts and reading (an answer, also as a choice of four), arithmetic (a number), format
(instructions that a rule can check), code and prose (raw text). The continuous measures are what a change shows in: a hundred
yes-or-no items cannot tell a drop of two points from chance, the negative log-likelihood of ten right answers can. Accuracies
stand beside them for people.

Right answers are whole sentences that take up the question. A bare word under a chat template measures style: models open with
another word, and noise in the weights, which flattens that choice, makes the bare word likelier (SmolLM2, weights with 2 % noise:
-0.12 nats a token; sentences: -0.01 to +0.07 in six draws of the noise, three of them significant). ``general.nll`` counts every
item with a right answer the same. Code and prose are raw text with nothing before it, and saw all six: gate on them too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from ftcli.core.errors import UsageError
from ftcli.data.chat import render_answer, render_prompt
from ftcli.data.rows import Message
from ftcli.metrics.choices import chance_p, pick
from ftcli.metrics.figures import Figure, Figures
from ftcli.metrics.instructions import follows, last_number
from ftcli.metrics.names import Metric
from ftcli.metrics.perplexity import LN2, AnswerScore, bits_per_byte
from ftcli.metrics.statistics import Examples, fewest_rows, mean_of

if TYPE_CHECKING:
    from ftcli.stages.eval.subject import Subject

SUITES = ("general",)
Kind = Literal["facts", "arithmetic", "format", "reading", "code", "prose"]
CHAT_KINDS: tuple[Kind, ...] = ("facts", "arithmetic", "format", "reading")
TEXT_KINDS: tuple[Kind, ...] = ("code", "prose")

NUMBER_TOKENS = 32
"""Greedy tokens in which a number must be said."""
FORMAT_TOKENS = 96
"""Greedy tokens in which an instruction must be followed; the longest example takes 30."""

FAMILY = "general"


def _nll(title: str, what: str) -> Metric:
    return Metric(title, FAMILY, False, 3, f"mean over {what} of nats a token, prompt given", margin=0.02)


def _accuracy(title: str, what: str) -> Metric:
    return Metric(title, FAMILY, True, 3, f"share of {what}", is_share=True, margin=0.01)


def _bits(title: str, what: str) -> Metric:
    return Metric(title, FAMILY, False, 4, f"bits per byte of {what}", margin=0.01)


METRICS: dict[str, Metric] = {
    "general.nll": _nll("General ability", "all items with a right answer"),
    "general.bpb": _bits("General ability, bits", "the right answers, mean over items: fit to compare two tokenizers"),
    "general.facts_nll": _nll("Facts", "right answers to questions of fact"),
    "general.facts_accuracy": _accuracy("Facts, accuracy", "right answers found likelier than three wrong ones"),
    "general.arithmetic_nll": _nll("Arithmetic", "right numbers"),
    "general.arithmetic_accuracy": _accuracy("Arithmetic, accuracy", "greedy answers whose last number is right"),
    "general.format_nll": _nll("Format", "answers that follow an instruction"),
    "general.format_accuracy": _accuracy("Format, accuracy", "greedy answers that follow the instruction, by rule"),
    "general.reading_nll": _nll("Reading", "right answers to questions on a passage"),
    "general.reading_accuracy": _accuracy("Reading, accuracy", "right answers found likelier than three wrong ones"),
    "general.code_bpb": _bits("Code", "Python, SQL, shell and JavaScript"),
    "general.prose_bpb": _bits("Prose", "English, German, French and Spanish"),
}

CHANCE = {
    "general.facts_accuracy": 0.25,
    "general.arithmetic_accuracy": 0.0,
    "general.format_accuracy": 0.0,
    "general.reading_accuracy": 0.25,
}
"""What guessing scores."""
SATURATED = 0.98
"""From this share on, next to nothing is left to gain."""


@dataclass(frozen=True)
class Item:
    """A question (``prompt``, right ``answer``, three ``wrong`` ones or ``checks`` that an answer must pass), or raw ``text``.

    ``language`` is that of the text: a programming language or the ISO 639-1 code of a human one.
    """

    id: str
    kind: Kind
    prompt: str = ""
    answer: str = ""
    wrong: tuple[str, ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    text: str = ""
    language: str = ""

    @property
    def messages(self) -> list[Message]:
        return [{"role": "user", "content": self.prompt}]


@dataclass(frozen=True)
class Suite:
    """``digest`` is that of the file's bytes, so that figures of two versions are never compared."""

    name: str
    version: str
    digest: str
    items: tuple[Item, ...]

    def of(self, *kinds: Kind) -> list[Item]:
        return [item for item in self.items if item.kind in kinds]

    def limited(self, count: int) -> Suite:
        """At most ``count`` items, of each kind as nearly alike as there are, and evenly spread over its items."""
        by_kind = [self.of(kind) for kind in (*CHAT_KINDS, *TEXT_KINDS)]
        sizes = [0] * len(by_kind)
        for turn in range(max(map(len, by_kind))):
            for place, items in enumerate(by_kind):
                if turn < len(items) and sum(sizes) < count:
                    sizes[place] += 1
        chosen = {
            items[index * len(items) // size].id
            for items, size in zip(by_kind, sizes, strict=True)
            for index in range(size)
        }
        return replace(self, items=tuple(item for item in self.items if item.id in chosen))

    def signature(self, how: str) -> str:
        return f"{self.name}@{self.version}|{self.digest[:19]}|{how}"


def load_suite(name: str) -> Suite:
    """A shipped suite. Raises `UsageError` for an unknown one."""
    if name not in SUITES:
        raise UsageError(f"there is no suite {name}", f"suites: {', '.join(SUITES)}")
    content = resources.files("ftcli.stages.eval").joinpath("suites", f"{name}.jsonl").read_bytes()
    head, *rows = map(json.loads, content.splitlines())
    lists = ("wrong", "checks")
    items = [Item(**row | {key: tuple(row[key]) for key in lists if key in row}) for row in rows]
    return Suite(head["suite"], head["version"], f"sha256:{hashlib.sha256(content).hexdigest()}", tuple(items))


def measure_suite(subject: Subject, suite: Suite) -> Figures:
    """The figures of one model, of the kinds that ``suite`` has items of.

    Without a chat template only raw text is measured; `unmeasured` says what is missing.
    """
    answered = _answers(subject, suite) if subject.tokenizer.chat_template else {}
    return {name: figure for name, figure in (answered | _texts(subject, suite)).items() if figure.ids}


def unmeasured(subject: Subject) -> dict[str, str]:
    """The metrics that `measure_suite` cannot give for this model, each with the reason."""
    if subject.tokenizer.chat_template:
        return {}
    raw = {f"general.{kind}_bpb" for kind in TEXT_KINDS}
    return {name: f"{subject.label} has no chat template to ask it with" for name in METRICS if name not in raw}


def uninformative(figures: Mapping[str, Figure]) -> dict[str, str]:
    """The accuracies of the baseline in which a change could hardly be seen, and why: at chance, at the floor, or saturated."""
    found: dict[str, str] = {}
    for name, chance in CHANCE.items():
        if name not in figures:
            continue
        statistics = figures[name].examples.statistics
        right, n = round(statistics[:, 0].sum()), len(statistics)
        if chance_p(right, n, chance) >= 0.05:
            found[name] = f"at chance ({right} of {n}, where guessing has {chance * n:g}): it can hardly fall"
        elif right / n >= SATURATED:
            found[name] = f"saturated ({right} of {n}): it can hardly rise"
        elif right < fewest_rows(0.05):
            found[name] = f"at the floor ({right} of {n}): the loss of them all would not be significant"
    return found


def _answers(subject: Subject, suite: Suite) -> Figures:
    """What is measured under the chat template: the right answer's nll, the choice among four, greedy answers."""
    items = suite.of(*CHAT_KINDS)
    asked = [(item, choice) for item in items for choice in (*item.wrong, item.answer)]
    pairs = [render_answer(subject.tokenizer, item.messages, choice, subject.stop_ids) for item, choice in asked]
    scores = iter(subject.answer_nll(pairs, f"{suite.name} suite"))
    costs = {item.id: [next(scores) for _ in (*item.wrong, item.answer)] for item in items}  # the right one's is last
    right = {item.id: costs[item.id][-1] for item in items}

    def likelihood(name: str, of: Sequence[Item]) -> Figure:
        values = [right[item.id].nll / right[item.id].tokens for item in of]
        shared = f"tokenizer:{subject.identity['tokenizer'][:12]}|{_dtype(subject)}"
        return _figure(name, suite, of, mean_of(values), "answer through its end-of-turn token|mean of items", shared)

    def accuracy(kind: Kind, correct: Sequence[bool], how: str) -> Figure:
        return _figure(f"general.{kind}_accuracy", suite, suite.of(kind), mean_of([float(one) for one in correct]), how)

    figures = [likelihood("general.nll", items), _bits_of_answers(subject, suite, items, right)]
    figures += [likelihood(f"general.{kind}_nll", suite.of(kind)) for kind in CHAT_KINDS]
    for kind in ("facts", "reading"):
        picked = [_picks_right(item, costs[item.id]) for item in suite.of(kind)]
        figures.append(accuracy(kind, picked, "1 of 4 by nll per byte"))
    numbers = _greedy(subject, suite.of("arithmetic"), NUMBER_TOKENS)
    equal = [last_number(text) == last_number(item.answer) for item, text in numbers]
    figures.append(accuracy("arithmetic", equal, f"greedy|{NUMBER_TOKENS} tokens|last number"))
    texts = _greedy(subject, suite.of("format"), FORMAT_TOKENS)
    followed = [follows(text, item.checks) for item, text in texts]
    figures.append(accuracy("format", followed, f"greedy|{FORMAT_TOKENS} tokens|rules"))
    return {name: figure for name in METRICS for figure in figures if figure.name == name}


def _picks_right(item: Item, costs: Sequence[AnswerScore]) -> bool:
    choices = (*item.wrong, item.answer)
    sizes = [len(choice.encode()) for choice in choices]
    return pick([cost.nll for cost in costs], sizes) == len(choices) - 1


def _bits_of_answers(subject: Subject, suite: Suite, items: Sequence[Item], right: Mapping[str, AnswerScore]) -> Figure:
    values = [right[item.id].nll / LN2 / len(item.answer.encode()) for item in items]
    how = "answer through its end-of-turn token|per byte|mean of items"
    return _figure("general.bpb", suite, items, mean_of(values), how, _dtype(subject))


def _greedy(subject: Subject, items: Sequence[Item], max_new_tokens: int) -> list[tuple[Item, str]]:
    prompts = [render_prompt(subject.tokenizer, item.messages) for item in items]
    answers = subject.answers(prompts, [item.id for item in items], max_new_tokens=max_new_tokens)
    return [(item, answer.text) for item, answer in zip(items, answers, strict=True)]


def _texts(subject: Subject, suite: Suite) -> Figures:
    """Bits per byte of raw text. No token stands before it, so its first one is not scored and its bytes do not count."""
    items = suite.of(*TEXT_KINDS)
    tokenizer = subject.tokenizer
    ids = [[int(one) for one in tokenizer(item.text, add_special_tokens=False)["input_ids"]] for item in items]
    scores = dict(zip((item.id for item in items), subject.text_nll(ids), strict=True))
    first = {item.id: len(str(tokenizer.decode(own[:1])).encode()) for item, own in zip(items, ids, strict=True)}
    figures: Figures = {}
    for kind in TEXT_KINDS:
        of = suite.of(kind)
        sizes = [len(item.text.encode()) - first[item.id] for item in of]
        examples = bits_per_byte([scores[item.id] for item in of], sizes)
        name = f"general.{kind}_bpb"
        figures[name] = _figure(name, suite, of, examples, "raw text|no prefix", _dtype(subject))
    return figures


def _figure(
    name: str, suite: Suite, items: Sequence[Item], examples: Examples, how: str, comparable: str = ""
) -> Figure:
    ids = tuple(item.id for item in items)
    return Figure(name, METRICS[name], examples, ids, suite.signature(how), comparable)


def _dtype(subject: Subject) -> str:
    return f"dtype:{subject.bench.dtype}".replace("torch.", "")
