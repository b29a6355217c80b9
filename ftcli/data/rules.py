"""Named packs of rules for the known defects of a family of data sets.

The pack ``alpaca`` is for instruction data that a model wrote; its classes are the defects that AlpacaDataCleaned found
in the first Alpaca set. Of these, wrong answers no rule can tell, and control characters are cleaned in any data
(`ftcli.data.clean`). Alpaca's ``input`` column stands at the end of the question, after a blank line.

A rule rejects or corrects only what can hardly be anything else; the rest is flagged for a person to see.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ftcli.data.gate import one_of
from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.rows import Row
from ftcli.data.texts import PARTS, imitated

Search = Callable[[str], re.Match[str] | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """``asked`` must fit a question and ``answered`` an answer to imitate, of those that are given.

    They are tried only where one of ``stems`` (lower case) is in the answers, or without ``answered`` in the questions;
    no stems mean always. ``fix`` takes what ``asked`` matches out of the question.
    """

    name: str
    what: str
    action: Literal["fix", "reject", "flag"]
    stems: tuple[str, ...] = ()
    asked: Search | None = None
    answered: Search | None = None


def _search(pattern: str) -> Search:
    return re.compile(pattern, re.IGNORECASE).search


def _match(pattern: str) -> Search:
    """Like `_search` for a pattern that begins where the text does: `re` would try ``\\A`` at every character."""
    return re.compile(pattern, re.IGNORECASE).match


NOTHING = r"(?:no[ _-]?input(?: (?:is )?(?:needed|required|necessary|provided|given|available))?|n/a|none|not applicable|empty)"
MERGED = r"(?:\A|\n)\W*(\d{1,3})\.\s*Instruction:[\s\S]*\n\W*\1\.\s*(?:Input|Output):"
PICTURE = (
    r"(?:image|picture|photo|photograph|drawing|logo|illustration|graphic|icon|painting|sketch|poster|cartoon|meme)s?"
)
NO_PICTURE = (
    r"(?:album|caption|title|descri|idea|concept|name|slogan|galler|edit|process|generat|app\b|website|class|tag|list|file|format"
    r"|reference)"
)
BETWEEN = rf"(?:(?!\b{NO_PICTURE}|\b(?:from|of|out|using|with|that|which|to|for|in|on)\b)[^.\n?:]){{0,40}}?"
SOURCE = (
    r"(?:text|passage|paragraph|article|sentences?|code(?: snippet)?|snippet|program|data ?set|table|list|e-?mail|letter|story|poem"
    r"|dialogue|conversation|review|tweet|recipe|equation|numbers?|words?|phrases?|data|url|string)"
)
ACT = (
    r"(?:increased|decreased|changed|updated|sent|set|added|removed|deleted|saved|scheduled|booked|created|adjusted|edited|opened"
    r"|closed|uploaded|downloaded|frozen|cropped|resized|highlighted|installed|printed)"
)
ALPACA = (
    Rule(
        "noinput",
        "the question ends by saying that it has no input",
        "fix",
        ("\n\n",),
        asked=_search(
            rf"(?:\n\n\s*(?:input:[ \t]*)?(?:[\[(<\"'`]+ *{NOTHING} *[\])>\"'`.]+|{NOTHING}\.?)[ \t]*)+\s*\Z"
        ),
    ),
    Rule(
        "merged_instruction",
        "an answer runs on into another numbered instruction with its input and output",
        "reject",
        ("instruction:",),
        answered=_search(MERGED),
    ),
    Rule(
        "merged_question",
        "a question holds another numbered instruction with its input or output",
        "reject",
        ("instruction:",),
        asked=_search(MERGED),
    ),
    Rule(
        "no_output",
        "an answer says that there is none: <no output>, N/A, nan",
        "reject",
        answered=_match(
            r"(?:\W*(?:no ?output|no ?input|n/a)\W*|\s*[<\[(](?:none|null|nan|empty|output|answer)[>\])]\W*"
            r"|\s*(?:(?-i:nan)|\.{3,}|\u2026)\s*)\Z"
        ),
    ),
    Rule(
        "attached_image",
        "the question is about a picture that is not there",
        "reject",
        ("picture", "image", "photo", "attach"),
        asked=_search(
            rf"(?:\A|\n)[ \t]*[<\[(] *(?:{PICTURE}(?: (?:is )?(?:attached|here|provided|below|of [^\n>\])]{{1,40}}))?"
            rf"|(?:attached|insert|see|input)(?: the| an?| attached)? ?{PICTURE}) *[>\])]\.?\s*\Z"
        ),
    ),
    Rule(
        "image_link",
        "the question links to a picture",
        "flag",
        ("http", "img src", "<img", "]("),
        asked=_search(r"!\[[^\]\n]*\]\(|<img\b|\bimg src=|https?://[^\s?#]+\.(?:jpe?g|png|gif|webp|bmp|tiff?)\b"),
    ),
    Rule(
        "url_input",
        "the question is about what a link leads to",
        "flag",
        ("http", "www."),
        asked=_match(
            r"(?=[^\n]*\b(?:summar|outline|main (?:point|idea)|key (?:point|takeaway)|headline|content|article|describe|review"
            r"|analy[sz]|classify|categori[sz]|read|about|explain|translat|topic|sentiment|paraphras))"
            r"[\s\S]*\n\n\W*(?:https?://|www\.)\S+\s*\Z"
        ),
    ),
    Rule(
        "image_request",
        "the question asks for a picture",
        "flag",
        asked=_match(
            r"\W*(?:please |can you |could you |you need to |i need you to )?"
            r"(?:create|draw|design|generate|sketch|paint|produce|make|colou?ri[sz]e|crop)"
            rf"\b{BETWEEN}\b{PICTURE}\b(?!['\u2019]|[ -]{NO_PICTURE})"
        ),
    ),
    Rule(
        "missing_input",
        "the question speaks of something that follows, and nothing does",
        "flag",
        ("following",),
        asked=_match(
            r"(?:[^\n:;\"\u201c'`]*[ (])?(?:the|this) following"
            rf"(?: \w+){{0,2}}? {SOURCE}\b[^\n:;\"\u201c'`(,]{{0,60}}[.:?]?\s*\Z"
        ),
    ),
    Rule(
        "label",
        "an answer begins with a label of the prompt it was made with: Output:, ### Response",
        "flag",
        answered=_match(
            r"\W*(?:(?:output|response|instruction|input)[ \t]*:|#{2,}[ \t]*(?:output|response|answer|instruction|input)\b)"
        ),
    ),
    Rule(
        "pretended",
        "an answer claims to have done what a text cannot do",
        "flag",
        (" been ",),
        asked=_match(
            r"(?!.*\b(?:sentence|passive|tense|rewrite|paraphrase|translate|convert|voice|grammar|edit|correct)\b)"
        ),
        answered=_match(
            r"(?:the|your|an?|this) [^.\n]{3,80} (?:has|have) (?:now |successfully )?been (?:successfully )?"
            rf"{ACT}\b[^.\n]{{0,60}}[.!]?\s*\Z"
        ),
    ),
)


def _stems(rules: Iterable[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(stem for rule in rules for stem in rule.stems))


RULES: dict[str, tuple[Rule, ...]] = {"alpaca": ALPACA}
"""The packs by name."""
ASKED_STEMS = {name: _stems(rule for rule in pack if not rule.answered) for name, pack in RULES.items()}
ANSWERED_STEMS = {name: _stems(rule for rule in pack if rule.answered) for name, pack in RULES.items()}
WITHOUT_STEMS = {name: tuple(rule for rule in pack if not rule.stems) for name, pack in RULES.items()}

STEMLESS = (
    r"no ?(?:out|in)put|n/a|[<\[(](?:none|null|nan|empty|output|answer)[>\])]|\bnan\b|\.{3}|\x{2026}"
    r"|(?:output|response|instruction|input)[ \t]*:|#[ \t]*(?:output|response|answer|instruction|input)"
    r"|image|picture|photo|drawing|logo|illustration|graphic|icon|painting|sketch|poster|cartoon|meme"
    r"|\x{131}"  # a dotless i, which `re` takes for an i in any case, unlike RE2
)
"""What a text has, in RE2's syntax, of which a rule without stems holds."""
GATES = {name: f"{one_of(_stems(pack))}|{STEMLESS}" for name, pack in RULES.items()}
"""For each pack the pattern of texts of which one of its rules may hold, for `ftcli.data.re2`."""


def apply_rules(row: Row, packs: Collection[str], notes: RowNotes) -> Row:
    """``row`` after the rules of the named ``packs``; text rows pass.

    What a rule corrects goes to ``notes.changed``, what it flags to ``notes.flags``, as ``rule:NAME``. Raises `Refused`
    if one rejects.
    """
    if "text" in row:
        return row
    messages = row["messages"] if "messages" in row else row.get("prompt", ())
    asked = [item["content"] for item in messages if item["role"] == "user"]
    answered = imitated(row)
    asked_low, answered_low = "\n".join(asked).lower(), "\n".join(answered).lower()
    for pack in packs:
        for rule in _likely(pack, asked_low, answered_low):
            if _holds(rule, asked, answered):
                row = _act(rule, row, notes)
    return row


def _likely(pack: str, asked: str, answered: str) -> Collection[Rule]:
    """The rules that may hold by their stems. Most rows have no stem of any rule, so all are tried before each rule's own."""
    if not _has_any(asked, ASKED_STEMS[pack]) and not _has_any(answered, ANSWERED_STEMS[pack]):
        return WITHOUT_STEMS[pack]
    return [
        rule for rule in RULES[pack] if not rule.stems or _has_any(answered if rule.answered else asked, rule.stems)
    ]


def _has_any(low: str, stems: Collection[str]) -> bool:
    for stem in stems:  # noqa: SIM110 - any() takes three times as long, and this runs for every row
        if stem in low:
            return True
    return False


def _holds(rule: Rule, asked: list[str], answered: list[str]) -> bool:
    if rule.asked is not None and not any(map(rule.asked, asked)):
        return False
    return rule.answered is None or any(map(rule.answered, answered))


def _act(rule: Rule, row: Row, notes: RowNotes) -> Row:
    name = f"rule:{rule.name}"
    if rule.action == "reject":
        raise Refused(Reason.RULE, f"{name}: {rule.what}")
    if rule.action == "flag" or rule.asked is None:
        notes.flags.append((name, rule.what))
        return row
    notes.changed.add(name)
    return {**row, **{part: [_without(item, rule.asked) for item in row[part]] for part in PARTS if part in row}}


def _without(item: dict[str, Any], search: Search) -> dict[str, Any]:
    """``item``, if it is a question, without what ``search`` finds in it."""
    found = search(item["content"]) if item.get("role") == "user" else None
    return {**item, "content": item["content"][: found.start()] + item["content"][found.end() :]} if found else item
