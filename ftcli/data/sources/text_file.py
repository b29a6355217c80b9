"""Plain text and Markdown for pretraining: a file is one document, one row ``{"text"}``.

Paragraphs are not torn apart, since what a model is to learn goes across them. Corpora in one large file separate their
documents by ``<|endoftext|>``; where that stands, a file is several rows. Line ends become ``\\n``.
"""

from __future__ import annotations

from collections.abc import Iterator

from ftcli.data.records import Reason, Record, Reject
from ftcli.data.sources.raw_file import Mine, RawFile

SEPARATOR = b"<|endoftext|>"


def read_text(file: RawFile, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """The documents of a text file; a row's line is where the document begins. Blank documents are no rows."""
    for index, (line, data, whole) in enumerate(_documents(file)):
        if whole:
            yield _row(file, line, data) if mine is None or mine(index) else None
        else:
            yield file.cut_off(line, data.decode("utf-8", "backslashreplace"))


def _documents(file: RawFile) -> Iterator[tuple[int, bytes, bool]]:
    """Line, bytes, and whether the file is undamaged up to the document's end."""
    start, lines = 1, []
    with file.open() as stream:
        for number, line in enumerate(stream, start=1):
            *ends, rest = line.split(SEPARATOR)
            for end in ends:
                lines.append(end)
                yield from _document(start, lines)
                start, lines = number, []
            if not lines and rest.isspace():
                start = number + 1
            else:
                lines.append(rest)
    if file.damage:
        yield start, b"".join(lines), False
    else:
        yield from _document(start, lines)


def _document(line: int, lines: list[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    data = b"".join(lines).strip(b"\r\n")
    if data and not data.isspace():
        yield line, data, True


def _row(file: RawFile, line: int, data: bytes) -> Record | Reject:
    try:
        text = file.decoded(data)
    except UnicodeDecodeError as error:
        raw = data[: error.start + 1000].decode("utf-8", "backslashreplace")
        return Reject(file.name, line, Reason.ENCODING, f"byte {error.start + 1} of the text is no UTF-8", raw)
    return Record(file.name, line, {"text": text.replace("\r\n", "\n").replace("\r", "\n")})
