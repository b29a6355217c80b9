"""Cleaning of texts and rows: mojibake, control characters, HTML, white space. Nothing here drops a row in silence.

Unicode: ftfy, tuned so that clean text stays as it is. Its defaults also straighten quotes, replace full-width and
ligature characters and unescape HTML: 300 changes in 3,000 clean lines, none with the settings here. ASCII text
cannot be mojibake and skips it, which makes the step six times faster on English data.

HTML: every parser turns ``vector<int>`` into ``vector``, so a text is touched only if it holds tags of known
elements, at least one of them closing or two of them ``br``, ``hr``, ``img`` or ``p``: ``<a> <b>`` in a usage line
are placeholders. Code is never touched, and a row that is about HTML or code is only counted (`keeps_html`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator

import ftfy
from resiliparse.extract.html2text import extract_plain_text

from ftcli.data.records import Reason, Reject, raw_json
from ftcli.data.rows import Message, Row

FTFY = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, normalization="NFC"
)
CONTROL = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]"  # terminal colours
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    r"|[\u200b\u2060\ufeff\ufff9-\ufffb]"  # zero width, but not the joiners: Persian, Hindi and emoji need them
    r"|[\u202a-\u202e\u2066-\u2069]"  # direction overrides, which make text look other than it is
)
FENCE = "```"
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
INLINE = "a|abbr|b|br|code|em|font|i|img|mark|s|small|span|strong|sub|sup|u"
BLOCK = (
    "article|aside|blockquote|body|center|dd|div|dl|dt|figure|footer|form|h[1-6]|head|header|hr|html|iframe|li|main|nav|ol|p|pre"
    "|script|section|style|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
QUOTED = re.compile(r'"[^"\n]*"')
CLOSING = re.compile(rf"</(?:{INLINE}|{BLOCK})\s*>", re.IGNORECASE)
LONE = re.compile(r"<(?:br|hr|img|p)(?:\s[^<>]*)?/?>", re.IGNORECASE)
BLOCK_TAG = re.compile(rf"</?(?:{BLOCK})(?:\s[^<>]*)?/?>", re.IGNORECASE)
FURTHER = "button|caption|cite|col|colgroup|del|input|ins|kbd|label|link|meta|noscript|samp|svg|textarea"
TAG = re.compile(rf"<(?:/?(?:{INLINE}|{BLOCK}|{FURTHER})\b|!)", re.IGNORECASE)
NO_TAG = re.compile(rf"<(?!/?(?:{INLINE}|{BLOCK}|{FURTHER})\b|!)", re.IGNORECASE)
BROKEN_TAG = re.compile(r"<[a-zA-Z/][^<>]*\n[^<>]*>")
ABOUT_MARKUP = re.compile(r"\b(?:x?html5?|xml|svg|css|jsx|markup|web ?pages?|websites?|tags?)\b", re.IGNORECASE)
CODE_LINE = re.compile(r"[;{}][ \t]*$", re.MULTILINE)
PRE = re.compile(r"<(pre|script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
MARK = ("\U0010fffc", "\U0010fffd")
"""Private characters around the number of a piece of code that is set aside while HTML is stripped."""


def fix_unicode(text: str) -> str:
    """Repair text that was decoded with the wrong encoding, and compose characters (NFC)."""
    return text if text.isascii() else ftfy.fix_text(text, FTFY)


def drop_control(text: str) -> str:
    """Remove control, zero-width and direction characters; line ends, tabs and joiners stay."""
    return CONTROL.sub("", text)


def tidy_space(text: str) -> str:
    """Drop carriage returns, trailing spaces, blank lines at both ends and more than two in a row.

    Indentation stays, as code needs it.
    """
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    tidy = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n")
    is_indented = any(line[:1].isspace() for line in tidy.split("\n")[1:])
    return tidy if is_indented else tidy.lstrip()


def has_html(text: str) -> bool:
    """Whether ``text`` holds HTML outside code and quotation marks, as ``send --html "<h1>Hello</h1>"`` does not."""
    if "<" not in text:
        return False
    prose = QUOTED.sub(lambda match: "" if "<" in match[0] else match[0], CODE.sub("", text))
    return bool(CLOSING.search(prose)) or len(LONE.findall(prose)) > 1


def strip_html(text: str) -> str:
    """The readable text of ``text`` if it holds HTML, with its code as it is.

    Where all tags are inline ones, lines stay lines and those without a tag stay as they are; with block tags the
    layout is that of the HTML, but blank lines still part paragraphs.
    """
    if not has_html(text) or MARK[0] in text:
        return text
    code: list[str] = []

    def set_aside(match: re.Match[str]) -> str:
        code.append(match[0])
        mark = f"{MARK[0]}{len(code) - 1}{MARK[1]}"
        return f"\n\n{mark}\n\n" if match[0].startswith(FENCE) and is_block else mark

    is_block = bool(BLOCK_TAG.search(CODE.sub("", text)))
    rest = BROKEN_TAG.sub(lambda match: match[0].replace("\n", " "), CODE.sub(set_aside, text))
    if is_block:
        plain = _extract(rest if "<pre" in rest.lower() else re.sub(r"\n[ \t]*\n", "\n<p>\n", rest))
    else:
        plain = "\n".join(_strip_line(line) for line in rest.split("\n"))
    return re.sub(f"{MARK[0]}(\\d+){MARK[1]}", lambda match: code[int(match[1])], plain)


def _strip_line(line: str) -> str:
    if not TAG.search(line):
        return line
    bare = line.lstrip()
    return line[: len(line) - len(bare)] + _extract(bare)


def _extract(html: str) -> str:
    return str(extract_plain_text(NO_TAG.sub("&lt;", html), preserve_formatting=True, main_content=False))


STEPS: dict[str, Callable[[str], str]] = {
    "unicode": fix_unicode,
    "control": drop_control,
    "html": strip_html,
    "whitespace": tidy_space,
}
"""The cleanings by name, in the order in which they run."""


def clean_rows(rows: Iterable[Row], steps: Collection[str], counts: Counter[str]) -> Iterator[Row]:
    """Rows with the named cleanings applied to all their texts.

    ``counts`` is filled on the way: rows changed by each cleaning, and as ``html_kept`` those whose HTML was left
    alone.
    """
    counts.update(dict.fromkeys([*steps, "html_kept"], 0))
    for row in rows:
        for name, step in STEPS.items():
            if name not in steps:
                continue
            if name == "html" and keeps_html(row):
                counts["html_kept"] += 1
                continue
            cleaned = map_texts(row, step)
            counts[name] += cleaned is not row
            row = cleaned
        yield row


def keeps_html(row: Row) -> bool:
    """Whether ``row`` holds HTML that had better stay.

    So it is if a question speaks of markup, if an answer with HTML has a code fence too, or if HTML stands among code.
    Raw text rows are web pages more often than programs, so for them this is never the case.
    """
    with_html = [message for message in _messages(row) if has_html(message["content"])]
    if not with_html:
        return False
    if any(ABOUT_MARKUP.search(message["content"]) for message in _messages(row) if message["role"] != "assistant"):
        return True
    fenced = any(FENCE in message["content"] for message in with_html if message["role"] == "assistant")
    return fenced or any(looks_like_code(message["content"]) for message in with_html)


def looks_like_code(text: str) -> bool:
    """Whether ``text`` holds program code that no fence and no ``pre`` element sets apart."""
    return "<?php" in text or len(CODE_LINE.findall(PRE.sub("", text))) > 1


def _messages(row: Row) -> list[Message]:
    return [message for part in ("messages", "prompt", "chosen", "rejected") for message in row.get(part, ())]


def map_texts(row: Row, step: Callable[[str], str]) -> Row:
    """``row`` itself if ``step`` changes none of its texts, else a copy with the changed ones."""
    texts = [row["text"]] if "text" in row else [message["content"] for message in _messages(row)]
    if all(step(text) == text for text in texts):
        return row
    changed = dict(row)
    for part in ("messages", "prompt", "chosen", "rejected"):
        if part in row:
            changed[part] = [{**message, "content": step(message["content"])} for message in row[part]]
    if "text" in row:
        changed["text"] = step(row["text"])
    return changed


def require_text(rows: Iterable[Row]) -> Iterator[Row | Reject]:
    """Refuse rows in which a question or an answer is empty, and pairs of equal answers.

    Empty system messages are dropped.
    """
    for row in rows:
        found = _emptiness(row)
        if found is None:
            yield _without_empty_system(row)
        else:
            reason, detail = found
            yield Reject(row["meta"]["file"], row["meta"]["line"], reason, detail, raw_json(row))


def _emptiness(row: Row) -> tuple[Reason, str] | None:
    if "text" in row:
        return None if row["text"].strip() else (Reason.EMPTY_PROMPT, "the text is empty")
    for message in _messages(row):
        if not message["content"].strip():
            if message["role"] == "user":
                return Reason.EMPTY_PROMPT, "a user's message is empty"
            if message["role"] == "assistant":
                return Reason.EMPTY_ANSWER, "an answer is empty"
    if "chosen" in row and row["chosen"] == row["rejected"]:
        return Reason.SAME_ANSWERS, "chosen and rejected are the same"
    return None


def _without_empty_system(row: Row) -> Row:
    for part in ("messages", "prompt"):
        first = row.get(part, [None])[0]
        if first and first["role"] == "system" and not first["content"].strip():
            return {**row, part: row[part][1:]}
    return row
