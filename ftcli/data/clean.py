"""Cleaning of texts and rows: mojibake, control characters, HTML, white space. Nothing here drops a row in silence.

Unicode: ftfy, tuned so that clean text stays as it is. Its defaults also straighten quotes, replace full-width and
ligature characters and unescape HTML: 300 changes in 3,000 clean lines, none with the settings here. Text that ftfy
would leave alone skips it: ASCII, and printable composed text without its signs of a wrong encoding.

HTML becomes its text (`ftcli.data.html`), but a row that is about HTML or code is only flagged, and what a tool
returned keeps its markup and its layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from unicodedata import is_normalized

import ftfy
from ftfy.badness import is_bad

from ftcli.data.html import keeps_html, strip_html, telling_tag
from ftcli.data.records import Reason, Refused, RowNotes
from ftcli.data.rows import Row
from ftcli.data.texts import contents_of, role_of, texts_of, with_texts

FTFY = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, normalization="NFC"
)
NON_ASCII = re.compile(r"[^\x00-\x7f]+")
REACH = 3
OTHER_FIXES = re.compile(
    r"[\x00-\x08\x0b\r\x0e-\x1f\x7f-\x9f\u2028\u2029\u206a-\u206f\ufeff\ufff9-\ufffc\ud800-\udfff]"
)
"""Characters that ftfy replaces or removes wherever they stand, of those that are not ASCII text."""
CONTROL = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]"  # terminal colours
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    r"|[\u200b\u2060\ufeff\ufff9-\ufffb]"  # zero width, but not the joiners: Persian, Hindi and emoji need them
    r"|[\u202a-\u202e\u2066-\u2069]"  # direction overrides, which make text look other than it is
)


def fix_unicode(text: str) -> str:
    """Repair text that was decoded with the wrong encoding, and compose characters (NFC)."""
    return ftfy.fix_text(text, FTFY) if _needs_fixing(text) else text


def _needs_fixing(text: str) -> bool:
    """Whether ftfy may change ``text``.

    It tells a wrong encoding by a slow pattern, all of whose matches lie on one line, at most two ASCII characters away
    from one that is not: only there is it asked, which takes a hundredth of the time on English web text.
    """
    if text.isascii():
        return False
    if OTHER_FIXES.search(text) or not is_normalized("NFC", text):
        return True
    return any(
        is_bad(line[max(found.start() - REACH, 0) : found.end() + REACH])
        for line in text.split("\n")
        if not line.isascii()
        for found in NON_ASCII.finditer(line)
    )


def _is_printable(text: str) -> bool:
    """Whether ``text`` holds no control or format character and no white space but spaces and line feeds."""
    return text.replace("\n", "").isprintable()


def drop_control(text: str) -> str:
    """Remove control, zero-width and direction characters; line ends, tabs and joiners stay."""
    return text if _is_printable(text) else CONTROL.sub("", text)


def tidy_space(text: str) -> str:
    """Drop carriage returns, trailing spaces, blank lines at both ends and more than two in a row.

    Indentation stays, as code needs it.
    """
    if "\n" not in text and "\r" not in text:
        return text.strip()
    if _is_printable(text) and _is_tidy(text):
        return text
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    tidy = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n")
    is_indented = any(line[:1].isspace() for line in tidy.split("\n")[1:])
    return tidy if is_indented else tidy.lstrip()


def _is_tidy(text: str) -> bool:
    """Whether printable ``text`` has no space to lose."""
    return " \n" not in text and "\n\n\n\n" not in text and text.strip() == text


def clean_row(row: Row, steps: Collection[str], notes: RowNotes) -> Row:
    """``row`` with the named cleanings of `STEPS` applied to all its texts, but none for markup or layout to a tool's.

    ``notes.changed`` gets the cleanings that changed something; a row whose HTML was kept is flagged ``html_kept``.
    """
    if _is_clean(texts_of(row)):
        return row
    for name, step in STEPS.items():
        if name not in steps:
            continue
        cleaned = step(row, notes)
        if cleaned is not row:
            notes.changed.add(name)
            row = cleaned
    return row


def _is_clean(texts: list[str]) -> bool:
    """Whether no cleaning can change any of ``texts``: true of most rows, and found without a look at each character."""
    joined = "\n".join(texts)
    return (
        joined.isascii()
        and "<" not in joined
        and _is_printable(joined)
        and _is_tidy(joined)
        and [text.strip() for text in texts] == texts
    )


def _map(row: Row, change: Callable[[str], str], *, tools: bool) -> Row:
    """``row`` itself if ``change`` leaves its texts as they are, else a copy; without ``tools`` those of tools stay."""
    texts = texts_of(row)
    changed = [change(text) for text in texts]
    if not tools and "text" not in row:
        items = contents_of(row)
        changed = [
            old if role_of(item) == "tool" else new for item, old, new in zip(items, texts, changed, strict=True)
        ]
    return row if changed == texts else with_texts(row, changed)


def _strip_row(row: Row, notes: RowNotes) -> Row:
    found = next((tag for text in texts_of(row) if (tag := telling_tag(text))), None)
    if found is None:
        return row
    if keeps_html(row):
        notes.flags.append(("html_kept", found))
        return row
    return _map(row, strip_html, tools=False)


STEPS: dict[str, Callable[[Row, RowNotes], Row]] = {
    "unicode": lambda row, _: _map(row, fix_unicode, tools=True),
    "control": lambda row, _: _map(row, drop_control, tools=True),
    "html": _strip_row,
    "whitespace": lambda row, _: _map(row, tidy_space, tools=False),
}
"""The cleanings by name, in the order in which they run."""


def require_text(row: Row) -> Row:
    """``row`` without an empty system message.

    Raises `Refused` if a question or an answer is empty (one that calls a tool may be), or if answers that should
    differ are the same: both of a pair, or candidates of different ranks, or all candidates.
    """
    found = _emptiness(row) or _sameness(row)
    if found is not None:
        raise Refused(*found)
    return _without_empty_system(row)


def _emptiness(row: Row) -> tuple[Reason, str] | None:
    if "text" in row:
        return None if row["text"].strip() else (Reason.EMPTY_PROMPT, "the text is empty")
    for item in contents_of(row):
        if not item["content"].strip():
            if role_of(item) == "user":
                return Reason.EMPTY_PROMPT, "a user's message is empty"
            if role_of(item) == "assistant" and not item.get("tool_calls"):
                return Reason.EMPTY_ANSWER, "an answer is empty"
    return None


def _sameness(row: Row) -> tuple[Reason, str] | None:
    if "chosen" in row and row["chosen"] == row["rejected"]:
        return Reason.SAME_ANSWERS, "chosen and rejected are the same"
    if "candidates" in row:
        ranks: dict[str, int] = {}
        for item in row["candidates"]:
            if ranks.setdefault(item["content"], item["rank"]) != item["rank"]:
                return Reason.SAME_ANSWERS, f"one candidate has the ranks {ranks[item['content']]} and {item['rank']}"
        if len(ranks) == 1:
            return Reason.SAME_ANSWERS, "all candidates are the same"
    return None


def _without_empty_system(row: Row) -> Row:
    for part in ("messages", "prompt"):
        first = row.get(part, [None])[0]
        if first and first["role"] == "system" and not first["content"].strip():
            return {**row, part: row[part][1:]}
    return row
