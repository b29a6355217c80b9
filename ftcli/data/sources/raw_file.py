"""A file with rows, opened as UTF-8 whatever its compression and encoding.

Compressed data that end early or are damaged end the stream instead of raising: the readers go on to the last whole
row, and then ask for `RawFile.damage`. Python's own gzip reader raises and drops what it has buffered.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import zstandard

from ftcli.core.errors import BadData
from ftcli.data.records import Reason, Reject
from ftcli.data.sources.encodings import narrow_encoding, to_utf8, wide_encoding

BOM = b"\xef\xbb\xbf"
PACKED_BYTES = 2**12
"""How much is decompressed at a time. Where data are damaged, what came out of the last piece is lost."""
BUFFER_BYTES = 2**20

Mine = Callable[[int], bool] | None
"""Whether a reader has to parse the row with this index, counted from 0; None for all. Others are yielded as None."""


def _new_gzip() -> Any:
    return zlib.decompressobj(31)  # a header and a checksum of gzip, and the largest window


def _new_zstd() -> Any:
    return zstandard.ZstdDecompressor().decompressobj()


DECOMPRESSORS = {".gz": _new_gzip, ".zst": _new_zstd}


@dataclass
class RawFile:
    """One file of a source; ``name`` is how records call it, ``notes`` gets what a person should know about it."""

    path: Path
    name: str
    notes: list[str] = field(default_factory=list)
    _damaged: list[str] = field(default_factory=list)

    def open(self) -> BinaryIO:
        """The file's bytes, decompressed, in UTF-8 without a byte order mark (or as they are, if they are no UTF-8)."""
        file = self._unpacked()
        if self.wide:
            file = _stream(_closing_after(file, to_utf8(_chunks(file), self.wide, self._damaged)))
        if file.peek(len(BOM)).startswith(BOM):  # type: ignore[attr-defined]
            file.read(len(BOM))
        return file

    def open_text(self) -> TextIO:
        """The file's text, with its line ends. A byte of no encoding becomes a lone surrogate, which `encoded` undoes."""
        return io.TextIOWrapper(self.open(), encoding=self.encoding, errors="surrogateescape", newline="")

    def encoded(self, text: str) -> bytes:
        """UTF-8 of a text of `open_text`, with bad bytes as they are in the file."""
        return text.encode("utf-8", "surrogateescape")

    def decoded(self, data: bytes) -> str:
        """Text of bytes of `open`. Raises `UnicodeDecodeError` where they belong to no encoding."""
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            if self.encoding == "utf-8":
                raise
            return data.decode(self.encoding)

    @cached_property
    def encoding(self) -> str:
        """``utf-8`` or ``cp1252``, decided by the whole file when it is first asked for."""
        if self.wide:
            return "utf-8"
        with self._unpacked() as file:
            if file.peek(len(BOM)).startswith(BOM):  # type: ignore[attr-defined]
                return "utf-8"
            found = narrow_encoding(_chunks(file))
        if found != "utf-8":
            self.notes.append(f"{self.name}: no UTF-8, read as Windows-1252 (convert it if that looks wrong: iconv)")
        return found

    @property
    def damage(self) -> str:
        """What ended the file early, known once its end was reached; empty for a whole file."""
        return self._damaged[0] if self._damaged else ""

    def cut_off(self, line: int, raw: str = "", why: str = "", reason: Reason = Reason.TRUNCATED_INPUT) -> Reject:
        """The reject for all rows from ``line`` on, which ``damage`` or ``why`` cost; ``raw`` is what is left of the first.

        Raises `BadData` if that is all rows.
        """
        detail = self.damage or why
        if line == 1 and not raw:
            raise BadData(f"{self.name}: nothing in it can be read: {detail}", "fetch the file again, or remove it")
        self.notes.append(f"{self.name}: nothing was read from line {line} on: {detail}")
        return Reject(self.name, line, reason, detail, raw)

    @cached_property
    def wide(self) -> str | None:
        """The codec of a file in UTF-16 or UTF-32, else None."""
        with self._unpacked() as file:
            return wide_encoding(file.read(4))

    def _unpacked(self) -> BinaryIO:
        new = DECOMPRESSORS.get(self.path.suffix.lower())
        if new is None:
            return self.path.open("rb")
        packed = self.path.open("rb")
        return _stream(_closing_after(packed, _decompress(packed, new, self._damaged)))


def _decompress(packed: BinaryIO, new: Callable[[], Any], damaged: list[str]) -> Iterator[bytes]:
    """Bytes of all members of a gzip or zstd file; ``damaged`` gets a line if they end early."""
    decompressor, whole = new(), True
    while data := packed.read(PACKED_BYTES):
        while data:
            if decompressor.eof:
                decompressor = new()
            try:
                yield decompressor.decompress(data)
            except (zlib.error, zstandard.ZstdError) as error:
                damaged.append(f"the compressed data are damaged: {error}")
                return
            whole = decompressor.eof
            data = decompressor.unused_data.lstrip(b"\0") if whole else b""  # files on tape are padded with zeros
    if not whole:
        damaged.append("the compressed file is cut off")


def _closing_after(file: BinaryIO, chunks: Iterator[bytes]) -> Iterator[bytes]:
    with closing(file):
        yield from chunks


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(BUFFER_BYTES), b"")


def _stream(chunks: Iterator[bytes]) -> BinaryIO:
    return io.BufferedReader(_Chunks(chunks), BUFFER_BYTES)


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._chunks.close()  # type: ignore[attr-defined]
        super().close()
