"""HTML in texts: found where it is meant as such, and replaced by the text that it shows.

Every parser turns ``vector<int>`` into ``vector``, so a text is touched only if it holds tags of known elements, at
least one of them closing or two of them ``br``, ``hr``, ``img`` or ``p``: ``<a> <b>`` in a usage line are
placeholders. Code is never touched, and `keeps_html` says which rows are about HTML or code.
"""

from __future__ import annotations

import re

from resiliparse.extract.html2text import extract_plain_text

from ftcli.data.rows import Row
from ftcli.data.texts import contents_of, role_of

FENCE = "```"
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
INLINE = "a|abbr|b|br|code|em|font|i|img|mark|s|small|span|strong|sub|sup|u"
BLOCK = (
    "article|aside|blockquote|body|center|dd|div|dl|dt|figure|footer|form|h[1-6]|head|header|hr|html|iframe|li|main|nav|ol|p|pre"
    "|script|section|style|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
QUOTED = re.compile(r'"[^"\n]*"')
CLOSING = re.compile(rf"</(?:{INLINE}|{BLOCK})\s*>", re.IGNORECASE)
LONE = re.compile(r"<(br|hr|img|p)(?:\s[^<>]*)?/?>", re.IGNORECASE)
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


def has_html(text: str) -> bool:
    """Whether ``text`` holds HTML outside code and quotation marks, as ``send --html "<h1>Hello</h1>"`` does not."""
    return telling_tag(text) is not None


def telling_tag(text: str) -> str | None:
    """The tag without its attributes from which HTML is told outside code and quotation marks, if any."""
    if "<" not in text:
        return None
    prose = QUOTED.sub(lambda match: "" if "<" in match[0] else match[0], CODE.sub("", text))
    closing = CLOSING.search(prose)
    if closing:
        return closing[0]
    lone: list[str] = LONE.findall(prose)
    return f"<{lone[0]}>" if len(lone) > 1 else None


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


def keeps_html(row: Row) -> bool:
    """Whether ``row`` holds HTML that had better stay.

    So it is if a question speaks of markup, if an answer with HTML has a code fence too, or if HTML stands among code.
    Raw text rows are web pages more often than programs, so for them this is never the case.
    """
    spoken = [item for item in contents_of(row) if role_of(item) != "tool"]
    with_html = [item for item in spoken if has_html(item["content"])]
    if not with_html:
        return False
    if any(ABOUT_MARKUP.search(item["content"]) for item in spoken if role_of(item) != "assistant"):
        return True
    fenced = any(FENCE in item["content"] for item in with_html if role_of(item) == "assistant")
    return fenced or any(looks_like_code(item["content"]) for item in with_html)


def looks_like_code(text: str) -> bool:
    """Whether ``text`` holds program code that no fence and no ``pre`` element sets apart."""
    return "<?php" in text or len(CODE_LINE.findall(PRE.sub("", text))) > 1
