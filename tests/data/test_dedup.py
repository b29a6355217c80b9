"""Keys of exact duplicates and of groups."""

from __future__ import annotations

from typing import Any

import pytest

from ftcli.data.dedup import drop_duplicates, exact_key, group_key
from ftcli.data.records import Reject


def chat(*texts: str, system: str = "", line: int = 1) -> dict[str, Any]:
    start = [{"role": "system", "content": system}] if system else []
    turns = [{"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(texts)]
    return {"messages": [*start, *turns], "meta": {"file": "f", "line": line}}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    parts = {"prompt": ("user", prompt), "chosen": ("assistant", chosen), "rejected": ("assistant", rejected)}
    return {name: [{"role": role, "content": text}] for name, (role, text) in parts.items()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What  is\nthis?", "what is this?"),
        ("don\u2019t say \u201cno\u201d", 'don\'t say "no"'),
        ("caf\u00e9", "cafe\u0301"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_case_space_quotes_and_composition_do_not_matter(one: str, other: str) -> None:
    assert exact_key(chat(one, "a")) == exact_key(chat(other, "a"))


@pytest.mark.parametrize(
    ("one", "other"), [("x <= y", "x < y"), ("return -1", "return 1"), ("exec 3>", "exec 3<"), ("7 apples", "8 apples")]
)
def test_symbols_and_digits_matter(one: str, other: str) -> None:
    assert exact_key(chat(one, "a")) != exact_key(chat(other, "a"))


def test_text_cannot_move_between_question_and_answer() -> None:
    assert exact_key(chat("a b", "c")) != exact_key(chat("a", "b c"))
    assert exact_key(pair("q", "a", "b")) != exact_key(pair("q", "b", "a"))


def test_the_first_of_duplicates_is_kept_and_the_others_name_it() -> None:
    kept, other, refused = drop_duplicates([chat("Q", "a", line=1), chat("Q", "b", line=2), chat("q ", "A", line=9)])
    assert not isinstance(kept, Reject)
    assert not isinstance(other, Reject)
    assert isinstance(refused, Reject)
    assert kept["meta"]["line"] == 1
    assert kept["id"] != other["id"]
    assert (refused.reason, refused.line, refused.detail) == ("exact_duplicate", 9, f"the same as f:1, id {kept['id']}")


def test_the_id_depends_on_the_text_alone() -> None:
    (one,) = drop_duplicates([chat("q", "a", line=1)])
    (other,) = drop_duplicates([{"id": "old", **chat("q", "a", line=5)}])
    assert not isinstance(one, Reject)
    assert not isinstance(other, Reject)
    assert one["id"] == other["id"]


def test_rows_with_the_same_opening_share_a_group() -> None:
    group = group_key(chat("Q", "a"))
    assert group_key(chat("q", "other")) == group
    assert group_key(chat("q", "a", "more", "b")) == group
    assert group_key(chat("q", "a", system="be brief")) == group
    assert group_key(pair("q", "c", "r")) == group
    assert group_key(chat("another", "a")) != group


def test_a_text_row_is_its_own_group() -> None:
    assert group_key({"text": "A  b"}) == group_key({"text": "a b"})
    assert group_key({"text": "a"}) != group_key({"text": "b"})
