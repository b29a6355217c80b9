"""From a teacher's reply to a canonical row, and what the row tells of its making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftcli.data.dedup import keys_of
from ftcli.data.rows import Message, Row
from ftcli.data.synthetic import Exchange, Form, Instruction, Quoted, Worse, has_quote
from ftcli.data.synthetic_gates import Candidate, Drop, Dropped
from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.journal import Answer
from ftcli.stages.synth.plan import Ask
from ftcli.stages.synth.prompts import template_hash

ID_DIGITS = 24
"""As the ids that prep gives: the first bits of the row's exact key."""


def candidate_of(ask: Ask, form: Form) -> Candidate:
    """The row that ``form`` makes, without ``meta``. Raises `Dropped` for a quote that is not in the passage."""
    before = [dict(message) for message in ask.exemplars[0].before] if ask.exemplars and ask.depth else []
    if isinstance(form, Quoted) and not has_quote(ask.passage.text if ask.passage else "", form.quote):
        raise Dropped(Drop.QUOTE, f"the passage does not say {form.quote!r}")
    if isinstance(form, Exchange):
        messages = [*before, _user(form.instruction), _assistant(form.response)]
        return Candidate(_named({"messages": messages}), (form.instruction, form.response))
    seed = ask.exemplars[0]
    prompt = [dict(message) for message in seed.before]
    if isinstance(form, Instruction):
        messages = [*prompt, _user(form.instruction), _assistant(seed.answer or "")]
        return Candidate(_named({"messages": messages}), (form.instruction,))
    if isinstance(form, Worse):
        pair = {"chosen": [_assistant(seed.answer or "")], "rejected": [_assistant(form.response)]}
        row = _named({"prompt": [*prompt, _user(seed.request)], **pair})
        return Candidate(row, (form.response,), copied=seed.answer or "", is_new_prompt=False)
    raise TypeError(f"{type(form).__name__} makes no row")


def provenance(
    ask: Ask,
    form: Form,
    answer: Answer,
    config: SynthConfig,
    teacher: Mapping[str, Any],
    gates: Mapping[str, float],
    key: str,
    *,
    is_repaired: bool,
) -> dict[str, Any]:
    """``meta.prov`` of a synthetic row. ``review`` is for people to fill in."""
    sampling = {"temperature": config.temperature, "seed": config.seed, "max_new_tokens": config.max_new_tokens}
    found: dict[str, Any] = {
        "origin": "synthetic",
        "mode": config.mode,
        "teacher": dict(teacher),
        "template": {"id": ask.template, "sha256": template_hash(ask.template, ask.form)},
        "seed_ids": ask.seed_ids,
        "request": key,
        "repaired": is_repaired,
        "sampling": {name: value for name, value in sampling.items() if name not in answer.left_out},
        "gates": dict(gates),
        "review": None,
    }
    if ask.attributes:
        found["attributes"] = dict(ask.attributes)
    if ask.depth:
        operator = ask.template.partition("/")[2]
        found |= {"parent_id": ask.exemplars[0].id, "operator": operator, "depth": ask.depth}
    if ask.passage is not None and isinstance(form, Quoted):
        found |= {"document_id": ask.passage.document, "passage_start": ask.passage.start, "quote": form.quote}
    if isinstance(form, Worse):
        found["flaw"] = form.flaw
    return found


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _named(row: Row) -> Row:
    return {"id": f"{keys_of(row).exact:032x}"[:ID_DIGITS], **row}
