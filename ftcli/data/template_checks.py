"""The checks of a chat template, one function each, in the order in which findings are told.

Each looks at what the template writes (`ftcli.data.template_case`); no template is known by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ftcli.data.chat import TemplateFault
from ftcli.data.template_case import ANSWER, SYSTEM, THOUGHT, Case, difference, has_system, quoted

Level = Literal["error", "warning", "note"]
FEW, NEARLY_ALL = 0.01, 0.95
"""Shares of trained tokens below and above which something is probably wrong."""
_CLOCK = re.compile(r"\bstrftime_now\s*\(")
_WORD = re.compile(r"[^\W\d_]{2,}")
LOOK = "look at the rows: ftcli inspect-mask --rows 5"


@dataclass(frozen=True)
class Finding:
    """``seen`` names the token or text in question; ``fix`` is what to type or edit."""

    name: str
    level: Level
    seen: str
    fix: str


def _beginning_of_sequence(case: Case) -> Iterator[Finding]:
    bos = case.tokenizer.bos_token_id
    if bos is None:
        return
    name = case.name(bos)
    texts = [case.whole, case.with_system] if isinstance(case.with_system, str) else [case.whole]
    written = max(_repeated(case.ids(text), bos) for text in texts)
    adds = case.ids("x", special=True)[:1] == [bos] != case.ids("x")[:1]
    if written > 1:
        yield Finding(
            "double_bos",
            "error",
            f"rows begin with {written} beginning-of-sequence tokens {name}; models were trained with one",
            "write it once in chat_template.jinja, which may have it as {{ bos_token }} and by its name",
        )
    elif written and adds:
        yield Finding(
            "bos_from_template_and_tokenizer",
            "note",
            f"the template writes {name} and the tokenizer adds one to plain text; here it adds none, so rows begin with one",
            "nothing to do; in other programs encode rendered text with add_special_tokens=False",
        )
    elif adds:
        yield Finding(
            "missing_bos",
            "warning",
            f"the tokenizer begins plain text with {name}, but the template does not write it, so rows have none",
            "write {{ bos_token }} at the beginning of chat_template.jinja",
        )


def _repeated(ids: list[int], token: int) -> int:
    """How many of ``token`` the ids begin with."""
    return next((place for place, found in enumerate(ids) if found != token), len(ids))


def _padding(case: Case) -> Iterator[Finding]:
    pad = case.tokenizer.pad_token_id
    if pad is None:
        yield Finding(
            "no_pad_token",
            "error",
            "the tokenizer has no padding token, so rows cannot be put into one batch",
            f'set "pad_token" in tokenizer_config.json, e.g. to {quoted(case.tokenizer.eos_token or "<pad>")}',
        )
    elif pad in case.stop_ids:
        yield Finding(
            "pad_is_stop_token",
            "note",
            f"the padding token {case.name(pad)} ends answers too; harmless here, where labels come from the place of the "
            "answer and never from comparing ids with padding",
            "nothing to do; a program that leaves padding out of the loss by its id would never train the model to stop",
        )


def _end_of_turn(case: Case) -> Iterator[Finding]:
    """Whether an answer ends with a token that stops generation, and if not, why."""
    stops, ids = case.names(sorted(case.stop_ids)), case.ids(case.tail)
    trained = next((token for token in ids if token in case.stop_ids), None)
    split = [marker for marker in case.markers if case.is_split(marker)]
    closing = next((marker for marker in split if marker in case.tail), None) if trained is None else None
    for marker in split:
        pieces = case.tokenizer.convert_ids_to_tokens(case.ids(marker))
        what = f"{quoted(marker)} is no token here but {len(pieces)}: {' '.join(pieces)[:80]}"
        if marker == closing:
            yield Finding(
                "split_control_token",
                "error",
                f"{what}; it is to end an answer, but generation stops at {stops} alone",
                "use the tokenizer that the template was made for, or write {{ eos_token }} in its place",
            )
        else:
            yield Finding(
                "split_control_token",
                "note",
                what,
                "nothing to do if the model was trained so; else use the tokenizer that the template was made for",
            )
    if trained is not None:
        yield from _generation_stops(case, trained)
    elif closing is None:
        yield _no_stop(case, ids, stops)


def _no_stop(case: Case, ids: list[int], stops: str) -> Finding:
    control = {*case.tokenizer.all_special_ids, *case.tokenizer.get_added_vocab().values()}
    last = next((token for token in ids if token in control), None)
    if last is None:
        return Finding(
            "missing_end_of_turn",
            "error",
            f"after an answer the template writes {quoted(case.tail)}, and generation stops at {stops}: the model would never "
            "learn to stop",
            "write {{ eos_token }} after an assistant's message['content'] in chat_template.jinja",
        )
    return Finding(
        "end_of_turn_is_no_stop",
        "error",
        f"an answer ends with {case.name(last)}, but generation stops at {stops}: it would go on after every answer",
        f'set "eos_token": {quoted(str(case.tokenizer.convert_ids_to_tokens(last)))} in tokenizer_config.json, or add {last} to '
        '"eos_token_id" in generation_config.json',
    )


def _generation_stops(case: Case, trained: int) -> Iterator[Finding]:
    if case.generation_eos and trained not in case.generation_eos:
        yield Finding(
            "stop_never_trained",
            "warning",
            f"an answer ends with {case.name(trained)}, but the model's generation config stops at "
            f"{case.names(case.generation_eos)} alone; ftcli stops at either, other programs would go on after every answer",
            f'set "eos_token_id": {[*case.generation_eos, trained]} in generation_config.json',
        )


def _generation_prompt(case: Case) -> Iterator[Finding]:
    """The prompt that generation sees must be what training has before the answer, in text and in ids."""
    if not case.whole.startswith(case.prompt):
        generated, trained = difference(case.prompt, case.whole)
        hit = case.faults.get("generation_prompt_differs")
        who = f"; {hit}" if hit else "; not so for these rows" if case.rows else ""
        yield Finding(
            "generation_prompt_differs",
            "error" if hit or not case.rows else "note",
            f"generation begins an answer after {generated}, where training has {trained}{who}",
            "edit chat_template.jinja: what it writes for add_generation_prompt must be what it writes before an assistant's "
            "message['content']",
        )
        return
    header = case.whole[len(case.prompt) : case.whole.index(ANSWER)]
    if header.strip():
        yield Finding(
            "header_is_trained",
            "warning",
            f"between the generation prompt and an answer the template writes {quoted(header)}, which is trained as a part of "
            "every answer",
            "write the same at the end of the generation prompt in chat_template.jinja, unless the model is to write it",
        )
    alone = case.ids(case.prompt)
    if case.ids(case.whole)[: len(alone)] != alone:
        yield Finding(
            "tokens_cross_the_prompt",
            "note",
            f"the end of the generation prompt, {quoted(case.prompt[-12:])}, shares a token with what follows; here the two are "
            "encoded apart, so that training has the ids that generation sees",
            "nothing to do; a program that encodes a conversation as one text would train other ids",
        )


def _history(case: Case) -> Iterator[Finding]:
    kinds = {"an earlier answer": case.rewritten(ANSWER), "earlier thinking": case.rewritten(THOUGHT + ANSWER)}
    what, parted = next(((name, parted) for name, parted in kinds.items() if parted), ("", None))
    how = f"{what}: {parted[0]} while it is the last, {parted[1]} once more follow" if parted else ""
    fix = "train on single-turn rows, or edit chat_template.jinja so that it writes a turn the same whatever follows"
    if hit := case.faults.get("rewrites_history"):
        detail = f"; {how}" if how else f": {hit.what}"
        yield Finding("rewrites_history", "error", f"the template rewrites turns of {hit}{detail}", fix)
    elif how and case.whole.startswith(case.prompt):
        none = "none of these rows has such turns" if case.rows else "rows with such turns will be refused"
        level: Level = "note" if case.rows else "warning"
        yield Finding("rewrites_history", level, f"the template rewrites {how}; {none}", fix)


def _system_message(case: Case) -> Iterator[Finding]:
    having = sum(map(has_system, case.rows))
    count = f"{having} of {len(case.rows)} rows have one"
    level: Level = "error" if having else "note"
    fix = "put the system text into the first user message, in the rows or in chat_template.jinja"
    if isinstance(case.with_system, TemplateFault):
        seen = f"the template takes no system message; {count}. {case.with_system.message}"
        yield Finding("system_refused", level, seen, fix)
    elif SYSTEM not in case.with_system:
        seen = f"the template leaves out a system message without a word; {count}"
        yield Finding("system_left_out", level, seen, fix)
    added = case.added_text()
    if len(_WORD.findall(added)) > 2:
        without = f"{len(case.rows) - having} of {len(case.rows)} rows have no system message and get it"
        yield Finding(
            "default_system_prompt",
            "note",
            f"the template writes a text that no row has: {quoted(added)}; {without}, as every such prompt in generation does",
            "if it is not wanted, give rows a system message of their own, or take it out of chat_template.jinja",
        )


def _date(case: Case) -> Iterator[Finding]:
    if _CLOCK.search(str(case.tokenizer.chat_template)):
        yield Finding(
            "template_reads_the_clock",
            "warning",
            "the template writes today's date (strftime_now), so the same rows give other tokens tomorrow",
            "write a fixed date in its place in chat_template.jinja, or leave it out",
        )


def _rows(case: Case) -> Iterator[Finding]:
    """Rows that cannot be rendered although the simplest conversation can."""
    fine = {
        "refused": True,
        "tools_left_out": True,
        "generation_prompt_differs": case.whole.startswith(case.prompt),
        "missing_end_of_turn": any(token in case.stop_ids for token in case.ids(case.tail)),
    }
    for name, is_fine in fine.items():
        if is_fine and (hit := case.faults.get(name)):
            yield Finding(f"rows_{name}", "error", f"{hit}: {hit.what}", hit.fix)
    if hit := case.control_tokens_in_rows:
        yield Finding(
            "control_tokens_in_rows",
            "warning",
            f"{hit}: {quoted(hit.what)} is in a message's text and becomes the control token; were they rendered before?",
            "give rows as plain messages, or remove the token with a rule in prep",
        )


def _trained_share(case: Case) -> Iterator[Finding]:
    if not case.rendered:
        return
    counts = [sum(item.loss_mask) for item in case.rendered]
    tokens, trained, empty = sum(len(item.input_ids) for item in case.rendered), sum(counts), counts.count(0)
    of = f"of {len(counts)} rows looked at"
    if empty:
        seen = f"{empty} {of} have no token to train on, as they have no assistant's message"
        yield Finding(
            "no_trained_tokens", "warning" if trained else "error", seen, f"{LOOK}; answers need role: assistant"
        )
    if trained and not FEW <= trained / tokens <= NEARLY_ALL:
        is_few = trained / tokens < FEW
        yield Finding(
            "few_trained_tokens" if is_few else "nearly_all_trained",
            "warning",
            f"{trained} of {tokens} tokens ({trained / tokens:.1%}) {of} are trained on",
            f"{LOOK}; {'are the answers whole?' if is_few else 'are the questions in messages of the user?'}",
        )


CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _beginning_of_sequence,
    _padding,
    _end_of_turn,
    _generation_prompt,
    _history,
    _system_message,
    _date,
    _rows,
    _trained_share,
)
