"""HTML: told from what only looks like it, replaced by its text, and kept where it is the subject."""

from __future__ import annotations

import pytest

from ftcli.data.html import has_html, keeps_html, strip_html, telling_tag


def chat(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize(
    "text",
    [
        "vector<int> and List<String>",
        "if a < b and c > d",
        "git mv <a> <b>",
        "cp <p>",
        "use `<b>x</b>` here",
        "```html\n<p>one</p>\n<p>two</p>\n```",
        'send --html "<h1>Hello</h1>"',
        "x <y@example.org>",
    ],
)
def test_what_only_looks_like_html_is_left_alone(text: str) -> None:
    assert strip_html(text) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One &amp; two</p><p>Three</p>", "One & two\n\nThree"),
        ("first<br>second<br/>third", "first\nsecond\nthird"),
        ("<ul><li>a</li><li>b</li></ul>", "  • a\n  • b"),
        ("<p>Use vector<int> if a < 3</p>", "Use vector<int> if a < 3"),
        ("a <b>bold</b> word\n  - <i>item</i>\n\nplain <T> line", "a bold word\n  - item\n\nplain <T> line"),
        ('see <a\n href="x">this</a>', "see this"),
        ("<p>a</p><script>evil()</script>", "a"),
        ("<pre>\nif x:\n    y\n</pre>", "if x:\n    y"),
        ("Intro\n\n<div>box</div>\n\nOutro", "Intro\n\nbox\n\nOutro"),
        ("Intro <b>x</b>:\n```\n<p>keep\n   this</p>\n```\nend", "Intro x:\n```\n<p>keep\n   this</p>\n```\nend"),
    ],
)
def test_html_becomes_its_text(html: str, text: str) -> None:
    assert strip_html(html).strip("\n") == text


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Write an HTML page.", "<html><body><p>Hi</p></body></html>"),
        ("Bold in Markdown?", "Either ```**x**``` or <b>x</b>."),
        ("Guess the word", 'A program:\n<?php\n$word = "x";\necho "<b>$word</b>";\n?>\n<p>done</p>'),
        ("Fix it", "let x = 1;\nelement = <b>x</b>;\n"),
    ],
)
def test_html_that_is_the_subject_is_kept(question: str, answer: str) -> None:
    assert keeps_html(chat(question, answer))


def test_html_of_a_tool_or_of_a_web_page_is_nothing_to_keep() -> None:
    page = "<p>About HTML tags</p>"
    tool = {"role": "tool", "content": page}
    assert not keeps_html(
        {"messages": [{"role": "user", "content": "Fetch it"}, tool, {"role": "assistant", "content": "Done"}]}
    )
    assert not keeps_html({"text": page})


@pytest.mark.parametrize(
    ("text", "tag"),
    [("a<b> c</b >", "</b >"), ('<img src="x"> and <IMG src="y"/>', "<img>"), ("a < b", None), ("<p>one", None)],
)
def test_the_telling_tag_is_shown_without_attributes(text: str, tag: str | None) -> None:
    assert telling_tag(text) == tag
    assert has_html(text) == (tag is not None)
