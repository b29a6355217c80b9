"""Text files: a file is a document, and large files separate theirs."""

from __future__ import annotations

from pathlib import Path

from ftcli.data.records import Record, Reject
from ftcli.data.sources.raw_file import RawFile
from ftcli.data.sources.text_file import read_text


def documents(tmp_path: Path, content: bytes) -> list[Record | Reject | None]:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    return list(read_text(RawFile(path, "x.txt")))


def test_a_file_is_one_row_with_its_paragraphs(tmp_path: Path) -> None:
    text = "\n\n  Indented.\r\n\r\nSecond\u2028paragraph.\rThird.\n\n".encode()
    assert documents(tmp_path, text) == [Record("x.txt", 3, {"text": "  Indented.\n\nSecond\u2028paragraph.\nThird."})]


def test_documents_are_separated_on_a_line_of_their_own_or_inside_one(tmp_path: Path) -> None:
    text = b"One\nmore.\n<|endoftext|>\n\nTwo.<|endoftext|>Three.<|endoftext|><|endoftext|>\n \nFour."
    assert documents(tmp_path, text) == [
        Record("x.txt", 1, {"text": "One\nmore."}),
        Record("x.txt", 5, {"text": "Two."}),
        Record("x.txt", 5, {"text": "Three."}),
        Record("x.txt", 7, {"text": "Four."}),
    ]


def test_a_document_that_is_no_utf8_costs_itself(tmp_path: Path) -> None:
    text = "é\n<|endoftext|>\n".encode() + b"caf\xe9\n<|endoftext|>\nlast"
    first, bad, last = documents(tmp_path, text)
    assert (first, last) == (Record("x.txt", 1, {"text": "é"}), Record("x.txt", 5, {"text": "last"}))
    assert bad == Reject("x.txt", 3, "encoding", "byte 4 of the text is no UTF-8", "caf\\xe9")
