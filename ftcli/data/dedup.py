"""Keys under which rows are the same: duplicates, prompts, answers; and which of several duplicates stays.

Case, white space, quotation marks and Unicode composition do not count, symbols and digits do: ``x < y`` and ``x <= y`` are
different rows. Keys are digests (xxh3) of the rows' own text, so they depend on neither file nor position.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple

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


class Keys(NamedTuple):
    """Digests of one row, equal for rows that are the same in some respect; ``exact`` has 128 bits, the others 64."""

    exact: int
    """The same in all messages, tools, ranks and labels."""
    prompt: int
    """Everything before the last answer is the same, so the answers can be compared.

    The system message counts, for it may ask for another answer. A text row is its own prompt.
    """
    opening: int
    """Rows that must share a split: those with the same `opening_text`."""
    answer: int
    """The same last answer, pair or candidates, whatever the prompt; labels do not count."""
    guard: int
    """Differs where similar rows are no duplicates: by the numbers that count, and by their label."""


def keys_of(row: Row, counted: str = "") -> Keys:
    """The keys of ``row``; ``counted`` is the text whose numbers guard it (its `whole_text`, or none)."""
    parts = {part: _normal_part(part, row[part]) for part in EXACT if part in row}
    asked = {part: parts[part] for part in PROMPT if part in parts}
    if "messages" in row:
        asked = {"prompt": parts["messages"][:-1], **asked}
        answered = {"completion": parts["messages"][-1:]}
    else:
        answered = {part: parts[part] for part in ANSWER if part in parts}
    return Keys(
        exact=xxhash.xxh3_128_intdigest(_joined(parts)),
        prompt=xxhash.xxh3_64_intdigest(_joined(asked)),
        opening=xxhash.xxh3_64_intdigest(_joined({"text": [normalise(opening_text(row))]})),
        answer=xxhash.xxh3_64_intdigest(_joined(answered)),
        guard=xxhash.xxh3_64_intdigest(f"{number_key(counted)}:{row.get('label')}".encode()),
    )


def number_key(text: str) -> int:
    """64 bits, equal for texts with the same numbers in any order: every run of digits, as often as it occurs."""
    return xxhash.xxh3_64_intdigest(" ".join(sorted(NUMBER.findall(text))).encode())


def whole_text(row: Row) -> str:
    """All that the row says but the system messages: what near-duplicates and contamination are looked for in."""
    return whole_of(prompt_text(row), answer_text(row))


def whole_of(prompt: str, answer: str) -> str:
    """`whole_text` of a row with these `prompt_text` and `answer_text`."""
    return f"{prompt}\n{answer}".strip()


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


def _joined(parts: dict[str, list[str]]) -> bytes:
    """The texts of ``parts`` with their names, and separators that no text can move across."""
    found = [f"{name}\x1d" + "\x1f".join(texts) for name, texts in parts.items()]
    return "\x1c".join(found).encode("utf-8", "surrogatepass")


def _normal_part(name: str, value: Any) -> list[str]:
    """The normalised texts of one part of a row, with all else that tells them apart."""
    if name == "text":
        return [normalise(value)]
    if name in ("label", "tools"):
        return [_sorted_json(value)]
    if name == "candidates":
        return sorted(f"{item['rank']}\x1e{normalise(item['content'])}" for item in value)
    return [
        f"{message['role']}\x1e{normalise(message['content'])}\x1e{_sorted_json(message.get('tool_calls'))}"
        for message in value
    ]


def _sorted_json(value: Any) -> str:
    return "" if value in (None, []) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
