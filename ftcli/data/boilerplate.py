"""Stock phrases of assistants in answers: talk about themselves, refusals, knowledge cutoffs, pleasantries.

A model trained on them repeats them. They are looked for in the answers that a model is to imitate, outside code and
quotations, so that a story in which someone says one stays. Nothing is cut out: what is left of a refusal is no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ftcli.data.gate import one_of
from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.rows import Row
from ftcli.data.texts import imitated

Action = Literal["off", "flag", "drop"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A class of stock phrases. A text without any of the ``stems`` has none of them; ``pattern`` wants lower case.

    What a pattern captures, else what it matches, is shown to people, so it must not reach over words of the row's own.
    ``spoils`` says that an answer with such a phrase is of little worth; those speak of ``i`` or ``my``.
    """

    name: str
    spoils: bool
    stems: tuple[str, ...]
    pattern: re.Pattern[str]


CANNOT = "i(?: can't| cannot| can not| won't|'m unable to| am unable to|'m not able to| am not able to)"
MODEL = (
    r"(?:ai(?: language model| model| assistant| chatbot)?|artificial intelligence(?: \w+)?|(?:large )?language model)"
)
PHRASES = (
    Phrase(
        "self",
        True,
        (
            "n ai",
            "language model",
            "artificial intelligence",
            "personal",
            "human",
            "openai",
            "anthropic",
            "google",
            "meta",
            "mistral",
        ),
        re.compile(
            rf"\bas an? {MODEL},? (?:i|my|here)\b"
            rf"|\bi(?:'m| am)(?: just| only)? an? {MODEL}\b(?! (?:\w+er|\w+or|\w+ist|student|expert)\b)"
            r"|\bi(?:'m| am| was) (?:trained|created|developed|made) by (?:openai|anthropic|google|meta|mistral)\b"
            r"|\bi (?:don't|do not) (?:have|possess) (?:any )?(?:personal|human)"
            r" (?:opinions?|preferences?|feelings?|emotions?|beliefs?|experiences?)\b"
        ),
    ),
    Phrase(
        "refusal",
        True,
        ("sorry", "apologi", "i can't", "i cannot", "unable to", "not able to"),
        re.compile(
            rf"\b(?:sorry|apologi[sz]e)\b[^.!?\n]{{0,60}}?\b({CANNOT} (?:assist|help|provide|fulfil|comply|answer|complete"
            r"|do that|do this|generate|create|write|discuss|engage|retrieve|access|estimate|determine|give|offer|share))"
            rf"|\b{CANNOT} (?:assist|help)(?: you)? with (?:that|this|your request|such)\b"
            rf"|\b{CANNOT} (?:fulfil|comply with|condone)"
        ),
    ),
    Phrase(
        "cutoff",
        True,
        (
            "cutoff",
            "cut-off",
            "of my ",
            "my training",
            "my last",
            "my knowledge",
            "real-time",
            "real time",
            "the internet",
            "browse",
        ),
        re.compile(
            r"\bmy (?:knowledge|training)(?: data)? (?:cut-?off|was last updated|is limited|only goes)"
            r"|\bas of my (?:last|latest|most recent)? ?(?:update|knowledge|training)"
            rf"|\bmy (?:training data|last training)\b|\b{CANNOT} (?:access (?:the internet|real[- ]time)|browse)\b"
            r"|\bi (?:don't|do not) have (?:direct )?(?:access to )?(?:the internet|real[- ]time|live|current|up-to-date)\b"
        ),
    ),
    Phrase(
        "pleasantry",
        False,
        ("helps", "let me know if", "feel free to", "hesitate to", "anything else", "happy to help"),
        re.compile(
            r"\bhope (?:this|that|it) helps\b|\blet me know if you have any (?:further |other |more )?(?:questions?|doubts?)"
            r"|\blet me know if there(?:'s| is) anything"
            r"|\b(?:feel free|(?:don't|do not) hesitate) to (?:ask|reach out|let me know)\b"
            r"|\bis there anything else (?:i can|you'd like me|you would like me)\b|\bi(?:'d| would) be happy to help!"
        ),
    ),
)
GATE = one_of(stem for phrase in PHRASES for stem in phrase.stems)
"""The pattern of texts in which a stock phrase may be, for `ftcli.data.re2`."""
PLEASANTRIES = tuple(phrase for phrase in PHRASES if not phrase.spoils)
QUOTED = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d|^[ \t]*>[^\n]*$", re.DOTALL | re.MULTILINE
)


def find_boilerplate(answer: str) -> list[tuple[Phrase, str]]:
    """The first stock phrase of each class in ``answer``, in the order of `PHRASES`, with its words in lower case."""
    low = answer.lower().replace("\u2019", "'")
    flat = f" {low}".replace("\n", " ")
    speaks = " i " in flat or " i'" in flat or " my " in flat
    likely = [
        phrase
        for phrase in (PHRASES if speaks else PLEASANTRIES)
        if [stem for stem in phrase.stems if stem in low] and phrase.pattern.search(low)  # no any(): it takes longer
    ]
    if not likely:
        return []
    spoken = QUOTED.sub(" ", low)
    return [(phrase, hit[hit.lastindex or 0]) for phrase in likely if (hit := phrase.pattern.search(spoken))]


def check_boilerplate(row: Row, action: Action, notes: RowNotes) -> Row:
    """``row``, flagged as ``boilerplate`` for each class of stock phrases in the answers to imitate.

    With ``drop``, phrases that spoil an answer raise `Refused` instead. Text rows have no answers and pass.
    """
    if action == "off" or "text" in row:
        return row
    found = find_boilerplate("\n".join(imitated(row)))
    for phrase, words in found:
        detail = f"{phrase.name}: {words}"
        if action == "drop" and phrase.spoils:
            raise Refused(Reason.BOILERPLATE, detail)
        notes.flags.append(("boilerplate", detail))
    return row
