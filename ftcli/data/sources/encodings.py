"""Which encoding a text file is in, from its bytes alone.

UTF-8 is meant unless the first bytes say UTF-16 or UTF-32. Bytes that are no UTF-8 may be a damaged row of a UTF-8 file,
or the file may be an old Western one. A statistical guess would be wrong in silence for some files, so the question is
asked of the whole file and answered with Windows-1252 only where UTF-8 explains none of it; otherwise the bad rows
are refused one by one.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
NULLS: dict[tuple[int, ...], str] = {
    (1, 1, 1, 0): "utf-32-be",
    (0, 1, 1, 1): "utf-32-le",
    (1, 0, 1, 0): "utf-16-be",
    (0, 1, 0, 1): "utf-16-le",
}
"""Which of the first four bytes are null if the text begins with two characters of ASCII (RFC 4627, section 3)."""
ALL_HIGH = bytes(range(0x80, 0x100))
HIGH = re.compile(rb"[\x80-\xff]+")
MULTIBYTE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
"""A character of UTF-8 beyond ASCII (The Unicode Standard, table 3-7)."""
UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
"""Bytes without a meaning in Windows-1252."""
MEAN_RUN = 2.0
"""Accented letters of Western languages stand alone; where most stand in rows, it is another alphabet."""
LONGEST_RUN = 2**16
"""No text, in whatever language."""


def wide_encoding(head: bytes) -> str | None:
    """The codec of a file in UTF-16 or UTF-32 by its first four bytes or more: a byte order mark, or a pattern of nulls."""
    for mark, codec in MARKS.items():
        if head.startswith(mark):
            return codec
    return NULLS.get(tuple(int(byte == 0) for byte in head[:4]))


def narrow_encoding(chunks: Iterable[bytes]) -> str:
    """``cp1252`` if a file must be in it, else ``utf-8``. Stops reading at the first character of UTF-8 beyond ASCII.

    Windows-1252 needs: some byte beyond ASCII, none of which is part of valid UTF-8 or without a meaning in
    Windows-1252, mostly one at a time, and no null byte.
    """
    carried, high, runs = b"", 0, 0
    for chunk in chain(chunks, [b" "]):
        data = carried + chunk
        kept = data.rstrip(ALL_HIGH)  # a character may go on in the next chunk
        data, carried = kept, data[len(kept) :]
        if b"\0" in data or len(carried) > LONGEST_RUN:
            return "utf-8"
        if data.isascii():
            continue
        if _has_multibyte(data):
            return "utf-8"
        found = HIGH.findall(data)
        text = b" ".join(found)
        if MULTIBYTE.search(text) or UNDEFINED.search(text):
            return "utf-8"
        high, runs = high + len(text) - len(found) + 1, runs + len(found)
    return "cp1252" if high and high / runs < MEAN_RUN else "utf-8"


def _has_multibyte(chunk: bytes) -> bool:
    """Whether there is a character beyond ASCII before the first byte that is no UTF-8: a quick answer for most files."""
    try:
        chunk.decode("utf-8")
    except UnicodeDecodeError as error:
        return not chunk[: error.start].isascii()
    return True


def to_utf8(chunks: Iterable[bytes], codec: str, damaged: list[str]) -> Iterator[bytes]:
    """UTF-8 of a file in UTF-16 or UTF-32; ``damaged`` gets a line if that ends inside a character, or stops being text.

    A lone surrogate becomes three bytes that are no UTF-8, so the row that holds it is refused further on.
    """
    decoder = codecs.getincrementaldecoder(codec)("surrogatepass")
    for chunk in chunks:
        try:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:  # UTF-32 has numbers that are no characters
            damaged.append(f"no {codec.upper()}: {error.reason}")
            return
    if decoder.getstate()[0]:
        damaged.append(f"the file ends inside a character of {codec.upper()}")
