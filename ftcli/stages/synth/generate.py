"""From seeds to checked synthetic rows, top to bottom: plan, ask, read, ask once more, gates, files."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ftcli.core.errors import BadData, Stopped
from ftcli.core.stage import Context
from ftcli.data.records import printable
from ftcli.data.rows import SPLITS, Row, write_jsonl
from ftcli.data.synthetic import Form, Unusable, read_reply
from ftcli.data.synthetic_gates import Drop, Dropped, Gates, Limits
from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.journal import Answer, Journal, Question, key_of
from ftcli.stages.synth.material import Material, material_of
from ftcli.stages.synth.plan import Ask, exemplar_of, plan, plan_round
from ftcli.stages.synth.prompts import is_echo, repair
from ftcli.stages.synth.report import write_report
from ftcli.stages.synth.rows import candidate_of, provenance
from ftcli.stages.synth.teacher import Teacher, teacher_of

REQUESTS = "requests.jsonl"


@dataclass
class Outcome:
    """What became of every request that was answered: a row, or a record of why not."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    planned: int = 0
    asked: int = 0
    repairs: int = 0

    @property
    def reasons(self) -> Counter[str]:
        return Counter(str(item["reason"]) for item in self.rejected)


def synthesize(ctx: Context[SynthConfig]) -> None:
    config = ctx.config
    material = material_of(ctx)
    run = Synthesis(ctx, teacher_of(ctx), Journal(ctx.scratch / REQUESTS), _gates(config, material))
    started = time.monotonic()
    run.round(plan(config, material.exemplars, material.passages))
    for depth in range(2, config.depth + 1):
        parents = [item for row in run.latest if (item := exemplar_of(row, tuple(row["meta"]["prov"]["seed_ids"])))]
        if not parents:
            ctx.events.note(f"no row of round {depth - 1} passed, so round {depth} has none to go on from")
            break
        run.round(plan_round(config, parents, depth, run.outcome.planned))
    _write(ctx, run, time.monotonic() - started)


def _gates(config: SynthConfig, material: Material) -> Gates:
    limits = Limits(config.min_chars, config.max_chars, config.max_rouge_l, config.near_threshold, config.containment)
    return Gates(material.pool, material.held_out, limits)


class Synthesis:
    """A run in progress. ``latest`` are the rows of the last round, ``outcome`` what there is so far."""

    def __init__(self, ctx: Context[SynthConfig], teacher: Teacher, journal: Journal, gates: Gates) -> None:
        self.ctx, self.teacher, self.journal, self.gates = ctx, teacher, journal, gates
        self.outcome = Outcome()
        self.latest: list[Row] = []

    def round(self, asks: Sequence[Ask]) -> None:
        """Ask, read, ask once more for what cannot be read, and let the rest through the gates, in the order of ``asks``."""
        outcome = self.outcome
        outcome.planned += len(asks)
        first = {ask.number: self._question(ask.number, ask.messages) for ask in asks}
        self._answers(list(first.values()), "asking")
        answered = [ask for ask in asks if first[ask.number].key in self.journal.answers]
        outcome.asked += len(answered)
        again: dict[int, Question] = {}
        for ask in answered:
            answer = self.journal.answers[first[ask.number].key]
            problem = _problem(ask, answer)
            if problem and not answer.refused:
                messages = repair(ask.messages, printable(answer.text), printable(problem), ask.form)
                again[ask.number] = self._question(ask.number, messages)
        self._answers(list(again.values()), "asking once more")
        outcome.repairs += sum(question.key in self.journal.answers for question in again.values())
        self.latest = []
        for ask in answered:
            last = again.get(ask.number)
            is_repaired = last is not None and last.key in self.journal.answers
            question = last if last is not None and is_repaired else first[ask.number]
            self._judge(ask, question, is_repaired=is_repaired)
        outcome.rows += self.latest

    def _judge(self, ask: Ask, question: Question, *, is_repaired: bool) -> None:
        answer = self.journal.answers[question.key]
        try:
            form = _read(ask, answer)
            candidate = candidate_of(ask, form)
            scores = self.gates.admit(candidate)
        except Dropped as dropped:
            self.outcome.rejected.append(
                {
                    "number": ask.number,
                    "request": question.key,
                    "template": ask.template,
                    "seed_ids": ask.seed_ids,
                    "reason": str(dropped.reason),
                    "detail": printable(dropped.detail),
                    "repaired": is_repaired,
                    "raw": printable(answer.text),
                }
            )
            return
        about = (self.ctx.config, self.teacher.record, scores, question.key)
        prov = provenance(ask, form, answer, *about, is_repaired=is_repaired)
        self.latest.append({**candidate.row, "meta": {"prov": prov}})

    def _question(self, number: int, messages: list[dict[str, Any]]) -> Question:
        config = self.ctx.config
        sampling = (config.temperature, config.max_new_tokens, config.seed)
        return Question(key_of((number, messages, sampling)), messages)

    def _answers(self, questions: Sequence[Question], task: str) -> None:
        """See that each of ``questions`` has an answer in the journal, unless the budget ends before. Raises `Stopped`."""
        open_questions = [question for question in questions if question.key not in self.journal.answers]
        done = len(questions) - len(open_questions)

        def heard(question: Question, answer: Answer) -> None:
            nonlocal done
            self.journal.add(question, answer)
            done += 1
            self.ctx.events.progress(task, done, len(questions), tokens=self.journal.tokens)

        if open_questions:
            self.teacher.ask(open_questions, heard, lambda: bool(self.ctx.stop.asked) or self.is_spent)
        if self.ctx.stop.asked:
            raise Stopped(
                f"stopped by {self.ctx.stop.asked} with {len(self.journal.answers)} replies kept",
                "the same command goes on",
            )

    @property
    def is_spent(self) -> bool:
        limit = self.ctx.config.max_tokens
        return limit is not None and self.journal.tokens >= limit


def _read(ask: Ask, answer: Answer) -> Form:
    if answer.refused:
        raise Dropped(Drop.REFUSED, answer.refused)
    problem = _problem(ask, answer)
    if problem:
        cut = ", cut off at max_new_tokens" if answer.finish_reason == "length" else ""
        raise Dropped(Drop.PARSE, f"{problem}{cut}")
    return read_reply(answer.text, ask.form)


def _problem(ask: Ask, answer: Answer) -> str:
    try:
        form = read_reply(answer.text, ask.form)
    except Unusable as error:
        return str(error)
    return "it repeats the form and fills nothing in" if is_echo(form) else ""


def _write(ctx: Context[SynthConfig], run: Synthesis, seconds: float) -> None:
    outcome, config = run.outcome, ctx.config
    data, report = ctx.output("data"), ctx.output("report")
    reasons = {str(reason): outcome.reasons.get(str(reason), 0) for reason in Drop}
    if outcome.asked != len(outcome.rows) + sum(reasons.values()):
        raise RuntimeError(f"{outcome.asked} replies, {len(outcome.rows)} rows and {sum(reasons.values())} rejected")
    for split in SPLITS:
        write_jsonl(data / f"{split}.jsonl", outcome.rows if split == "train" else [])
    write_jsonl(report / "rejected.jsonl", outcome.rejected)
    if run.journal.path.exists():
        shutil.copyfile(run.journal.path, report / REQUESTS)
    facts: dict[str, Any] = {
        "planned": outcome.planned,
        "asked": outcome.asked,
        "rows": len(outcome.rows),
        "repairs": outcome.repairs,
        "tokens": run.journal.tokens if run.journal.is_counted else None,
        "rejected": {name: number for name, number in reasons.items() if number},
    }
    write_report(report, facts, outcome.rows, outcome.rejected, config, run.teacher.record)
    _tell(ctx, run, facts)
    ctx.events.summarize({**{f"synth/{name}": value for name, value in facts.items()}, "perf/seconds": seconds})
    if not outcome.rows:
        told = ", ".join(f"{number} {name}" for name, number in facts["rejected"].items()) or "nothing was asked"
        raise BadData(
            f"none of {outcome.asked} replies became a row: {told}",
            f"{report / 'rejected.jsonl'} has the replies; a better teacher, or other gates, may do",
        )


def _tell(ctx: Context[SynthConfig], run: Synthesis, facts: dict[str, Any]) -> None:
    told = ", ".join(f"{number} {name}" for name, number in facts["rejected"].items()) or "none"
    ctx.events.note(f"{facts['rows']} rows of {facts['asked']} replies; dropped: {told}")
    if run.is_spent:
        left = facts["planned"] - facts["asked"]
        ctx.events.note(
            f"max_tokens: {facts['tokens']} of {ctx.config.max_tokens} tokens used; {left} requests were not made"
        )
