"""Keys under which rows are the same: duplicates, prompts, answers; and which of several duplicates stays.

Case, white space, quotation marks and Unicode composition do not count, symbols and digits do: ``x < y`` and ``x <= y`` are
different rows. Keys are digests (xxh3) of the rows' own text, so they depend on neither file nor position.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from ftcli.data.rows import Row
from ftcli.data.texts import answer_text, prompt_text, said

QUOTES = str.maketrans("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033", "''''" + '""""' + "'" + '"')
NUMBER = re.compile(r"\d+")
PROMPT = ("text", "prompt", "tools")
ANSWER = ("text", "chosen", "rejected", "completion", "candidates")
EXACT = ("text", "messages", "prompt", "tools", "chosen", "rejected", "completion", "candidates", "label")


@lru_cache(maxsize=64)  # the keys of one row ask for the same few texts again and again
def normalise(text: str) -> str:
    """``text`` in NFC, lower case, with straight quotes and single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(QUOTES)
    return " ".join(text.casefold().split())


def exact_key(row: Row) -> int:
    """128 bits, equal for rows that are exact duplicates in all their messages, tools, ranks and labels."""
    return xxhash.xxh3_128_intdigest(_text_of(row, EXACT))


def prompt_key(row: Row) -> int:
    """64 bits, equal for rows whose answers can be compared: everything before the last answer is the same.

    The system message counts, for it may ask for another answer. A text row is its own prompt.
    """
    if "messages" in row:
        row = {**row, "prompt": row["messages"][:-1]}
    return xxhash.xxh3_64_intdigest(_text_of(row, PROMPT))


def answer_key(row: Row) -> int:
    """64 bits, equal for rows with the same last answer, pair or candidates, whatever the prompt; labels do not count."""
    if "messages" in row:
        row = {"completion": row["messages"][-1:]}
    return xxhash.xxh3_64_intdigest(_text_of(row, ANSWER))


def opening_key(row: Row) -> int:
    """64 bits, equal for rows that must share a split: those with the same `opening_text`."""
    return xxhash.xxh3_64_intdigest(_text_of({"text": opening_text(row)}, ("text",)))


def number_key(text: str) -> int:
    """64 bits, equal for texts with the same numbers in any order: every run of digits, as often as it occurs."""
    return xxhash.xxh3_64_intdigest(" ".join(sorted(NUMBER.findall(text))).encode())


def guard_key(row: Row, numbers: bool = True) -> int:
    """64 bits that differ where similar rows are no duplicates: by their numbers, if these count, and by their label."""
    counted = number_key(whole_text(row)) if numbers else 0
    return xxhash.xxh3_64_intdigest(f"{counted}:{row.get('label')}".encode())


def whole_text(row: Row) -> str:
    """All that the row says but the system messages: what near-duplicates and contamination are looked for in."""
    return f"{prompt_text(row)}\n{answer_text(row)}".strip()


def target_text(row: Row) -> str:
    """What the row teaches to answer: of a pair the chosen side, of candidates the best; empty for a bare prompt.

    Near-duplicates must agree in this too, or rows that label one long question differently, or prefer the other of the
    same two answers, would be taken for copies.
    """
    if "chosen" in row:
        return "\n".join(said(message) for message in row["chosen"])
    if "candidates" in row:
        best = min(item["rank"] for item in row["candidates"])
        return "\n".join(sorted(item["content"] for item in row["candidates"] if item["rank"] == best))
    return answer_text(row)


def opening_text(row: Row) -> str:
    """The first user message, or the text of a text row: what rows of one split group have in common.

    System messages do not count, and neither do later turns: every answer of a conversation is trained on, so a longer
    conversation with the same opening would leak it. Without a user message, the first that is not the system's counts.
    """
    if "text" in row:
        return str(row["text"])
    heard = [message for message in row.get("messages") or row["prompt"] if message["role"] != "system"]
    asked = [message for message in heard if message["role"] == "user"]
    return said((asked or heard)[0]) if heard else ""


def split_key(key: int) -> tuple[int, int]:
    """The upper and lower half of a 128-bit key, for a column of two 64-bit numbers."""
    return key >> 64, key & (2**64 - 1)


def rank_by(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """The place of each row [n] in an order that goes by the first column, among equals by the second, and so on.

    Begin with a digest of the row's content, so that the order of the input decides nothing but among identical rows.
    """
    order = np.lexsort(columns[::-1])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def kept_of(keys: NDArray[np.uint64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row [n] the row kept of all with its exact key [n, 2]: the one of lowest rank, itself if it is kept."""
    kept = np.empty(len(keys), dtype=np.int64)
    order = np.lexsort((rank, keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    kept[order] = order[is_first][np.cumsum(is_first) - 1]
    return kept


def _text_of(row: Row, parts: Sequence[str]) -> bytes:
    """The normalised text of those ``parts`` that the row has, with separators that no text can move across."""
    found = [f"{part}\x1d{_part_text(part, row[part])}" for part in parts if part in row]
    return "\x1c".join(found).encode("utf-8", "surrogatepass")


def _part_text(part: str, value: Any) -> str:
    if part == "text":
        return normalise(value)
    if part in ("label", "tools"):
        return _sorted_json(value)
    if part == "candidates":
        return "\x1f".join(sorted(f"{item['rank']}\x1e{normalise(item['content'])}" for item in value))
    return "\x1f".join(
        f"{message['role']}\x1e{normalise(message['content'])}\x1e{_sorted_json(message.get('tool_calls'))}"
        for message in value
    )


def _sorted_json(value: Any) -> str:
    return "" if value in (None, []) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
