"""Exact duplicates: rows that say the same but for case, white space, quotation marks and Unicode composition.

Symbols and digits count: ``x < y`` and ``x <= y`` are different rows. Keys are digests, so that a row's id and its
split depend on its text alone, not on its file or position.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator

from ftcli.data.records import Reason, Reject, raw_json
from ftcli.data.rows import Message, Row

QUOTES = str.maketrans("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033", "''''" + '""""' + "'" + '"')
DIGEST_BYTES = 12


def normalise(text: str) -> str:
    """``text`` in NFC, lower case, with straight quotes and single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(QUOTES)
    return " ".join(text.casefold().split())


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def _spoken(messages: list[Message]) -> str:
    return "\x1f".join(f"{message['role']}\x1e{normalise(message['content'])}" for message in messages)


def exact_key(row: Row) -> str:
    """Equal for rows whose prompt and answers are exact duplicates."""
    if "text" in row:
        return _digest(normalise(row["text"]))
    return _digest(
        "\x1d".join(_spoken(row[part]) for part in ("messages", "prompt", "chosen", "rejected") if part in row)
    )


def group_key(row: Row) -> str:
    """Equal for rows that must share a split: those with the same opening, the messages up to the first user's.

    System messages do not count, and neither do later turns: every answer of a conversation is trained on, so a
    longer conversation with the same opening would leak it. Pairs of one prompt share a key too. A text row is its
    own opening.
    """
    if "text" in row:
        return exact_key(row)
    messages = row.get("messages") or row["prompt"]
    return _digest(next(normalise(message["content"]) for message in messages if message["role"] == "user"))


def drop_duplicates(rows: Iterable[Row]) -> Iterator[Row | Reject]:
    """Give each row its ``id`` (the exact key) and keep the first of those with equal ids."""
    first: dict[str, str] = {}
    for row in rows:
        key, meta = exact_key(row), row["meta"]
        place = f"{meta['file']}:{meta['line']}"
        if key in first:
            detail = f"the same as {first[key]}, id {key}"
            yield Reject(meta["file"], meta["line"], Reason.EXACT_DUPLICATE, detail, raw_json(row))
        else:
            first[key] = place
            yield {"id": key, **{name: value for name, value in row.items() if name != "id"}}
