"""Personal data and secrets in rows, found by pattern and rule (`ftcli.data.sensitive`): flagged, replaced, or refused.

A value is replaced by a placeholder of its kind that is the same wherever it stands in the row, so that a conversation
still says who is who. What people are shown of a value is masked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from ftcli.data.gate import one_of
from ftcli.data.personal_kinds import PERSONAL
from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.rows import Row
from ftcli.data.secret_kinds import SECRETS
from ftcli.data.sensitive import digits_in, span_of
from ftcli.data.texts import PARTS, contents_of, map_texts

Action = Literal["off", "flag", "redact", "drop"]
KINDS = (*SECRETS, *PERSONAL)
"""In the order of precedence: in ``https://me:word@host.org`` there is a secret and no address."""
SECRET_NAMES = frozenset(kind.name for kind in SECRETS)
NEEDLES = {
    digits: tuple(dict.fromkeys(needle for kind in KINDS if kind.digits <= digits for needle in kind.needles))
    for digits in (0, 1, 5)
}
"""The needles of all kinds that a text may hold, by its digits."""


def _gate() -> str:
    """The pattern of texts in which `find` may find something: they have the needles, and the digits, of some kind."""
    plain, with_digit = one_of(NEEDLES[0]), one_of(needle for needle in NEEDLES[1] if needle not in NEEDLES[0])
    digit = r"(?-i:[0-9\x{80}-\x{10FFFF}])"  # not ASCII: perhaps a digit of another script
    run = r"[0-9](?:[ .:()/-]{0,2}[0-9]){4}"  # `DIGIT_RUN`, for RE2 looks ahead of nothing
    return rf"{plain}|{run}|(?:{with_digit})[\s\S]*{digit}|{digit}[\s\S]*(?:{with_digit})"


GATE = _gate()
"""For `ftcli.data.re2`; other data than texts, such as the arguments of tool calls, must be looked into without asking."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``text[start:end]`` is of ``kind``."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do with personal data and with secrets."""

    pii: Action = "flag"
    secrets: Action = "redact"

    def action(self, kind: str) -> Action:
        return self.secrets if kind in SECRET_NAMES else self.pii


def find(text: str) -> list[Finding]:
    """Personal data and secrets in ``text`` from left to right; of two that overlap, the kind that is first in `KINDS`."""
    low, digits = text.lower(), digits_in(text)
    there = {needle for needle in NEEDLES[digits] if needle in low}
    if not there and digits < 5:  # kinds without needles want the most digits
        return []
    found: list[Finding] = []
    for kind in KINDS:
        if kind.digits <= digits and not (kind.needles and there.isdisjoint(kind.needles)):
            for match in filter(kind.check, kind.pattern.finditer(text)):
                start, end = span_of(match)
                if all(end <= other.start or other.end <= start for other in found):
                    found.append(Finding(kind.name, start, end))
    return sorted(found, key=lambda finding: finding.start)


def mask(kind: str, text: str) -> str:
    """What may be shown of a value: at most its first letter, domain's first letter and ending, or last two digits."""
    if kind == "email":
        local, _, domain = text.rpartition("@")
        return f"{local[:1]}***@{domain[:1]}***.{domain.rpartition('.')[2]}"
    if kind in SECRET_NAMES:
        return "***"
    return f"***{text[-2:]}"


def withheld(text: str, policy: Policy) -> str:
    """``text`` with every value that ``policy`` would redact, or drop a row for, masked."""
    pieces, position = [], 0
    for finding in find(text):
        if policy.action(finding.kind) in ("redact", "drop"):
            pieces += [text[position : finding.start], mask(finding.kind, text[finding.start : finding.end])]
            position = finding.end
    return "".join([*pieces, text[position:]])


def guard(row: Row, policy: Policy, notes: RowNotes) -> Row:
    """``row`` with what ``policy`` wants replaced, also in the arguments of tool calls.

    Every different value is flagged as ``pii:KIND`` or ``secret:KIND`` with its mask; if replaced, that name is in
    ``notes.changed`` too. Raises `Refused` at the first value to drop.
    """
    if policy.pii == policy.secrets == "off":
        return row
    everything = _everything(row)
    if not find(everything):
        return row
    names: dict[tuple[str, str], str] = {}

    def treat(text: str) -> str:
        pieces, position = [], 0
        for finding in find(text):
            action = policy.action(finding.kind)
            if action == "off":
                continue
            value = text[finding.start : finding.end]
            group = f"{'secret' if finding.kind in SECRET_NAMES else 'pii'}:{finding.kind}"
            same = (finding.kind, _normal(finding.kind, value))
            if same not in names:
                if action == "drop":
                    raise Refused(Reason.PII, f"{finding.kind} {mask(finding.kind, value)}")
                names[same] = _unused(finding.kind, [everything, *names.values()])
                notes.flags.append((group, mask(finding.kind, value)))
            if action == "redact":
                pieces += [text[position : finding.start], names[same]]
                position = finding.end
                notes.changed.add(group)
        return "".join([*pieces, text[position:]]) if pieces else text

    return _map_calls(map_texts(row, treat), treat)


def _unused(kind: str, texts: list[str]) -> str:
    """The first placeholder of ``kind`` that none of ``texts`` holds: a row may have been through this before."""
    return next(
        name for number in count(1) if not any((name := f"<{kind.upper()}_{number}>") in text for text in texts)
    )


def _normal(kind: str, value: str) -> str:
    """Equal for two ways of writing the same value."""
    if kind in SECRET_NAMES:
        return value
    return value.lower() if kind == "email" else re.sub(r"[^\w.:]", "", value)


def _map_calls(row: Row, change: Callable[[str], str]) -> Row:
    """``row`` with the strings in the arguments of its tool calls changed; itself if none is."""
    copy = dict(row)
    for part in PARTS:
        if any("tool_calls" in item for item in row.get(part, ())):
            copy[part] = [
                {**item, "tool_calls": [_map_call(call, change) for call in item["tool_calls"]]}
                if item.get("tool_calls")
                else item
                for item in row[part]
            ]
    return row if copy == row else copy


def _map_call(call: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": _map_arguments(function.get("arguments"), change)}}


def _map_arguments(arguments: Any, change: Callable[[str], str]) -> Any:
    """Arguments as JSON text are changed string by string and written again, since a pattern would cut through escapes."""
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            return change(arguments)
        changed = _map_strings(parsed, change)
        return arguments if changed == parsed else json.dumps(changed, ensure_ascii=False)
    return _map_strings(arguments, change)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _map_strings(item, change) for name, item in value.items()}
    return value


def _everything(row: Row) -> str:
    """All texts of ``row`` and all strings in the arguments of its tool calls."""
    if "text" in row:
        return str(row["text"])
    found: list[str] = []
    for item in contents_of(row):
        found.append(item["content"])
        if "tool_calls" in item:
            for call in item["tool_calls"] or ():
                found += _strings(call["function"].get("arguments"))
    return "\n".join(found)


def _strings(value: Any) -> list[str]:
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    _map_arguments(value, note)
    return found
