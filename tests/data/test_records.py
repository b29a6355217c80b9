"""The ledger counts each row once and writes down what was refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftcli.data.records import Ledger, Reason, Reject, shorten


def refuse(line: int, reason: Reason, raw: str = "raw") -> Reject:
    return Reject("f", line, reason, "why", raw)


def test_steps_are_counted_and_rejects_written(tmp_path: Path) -> None:
    with Ledger(tmp_path / "r.jsonl") as ledger:
        read = ledger.keep("read", [1, refuse(2, Reason.PARSE_JSON), 3, 4])
        kept = list(
            ledger.keep("duplicates", (refuse(3, Reason.EXACT_DUPLICATE) if item == 3 else item for item in read))
        )
    assert kept == [1, 4]
    assert [step.to_json() for step in ledger.steps] == [
        {"step": "read", "rows_in": 4, "rows_out": 3, "rejected": {"parse_json": 1}},
        {"step": "duplicates", "rows_in": 3, "rows_out": 2, "rejected": {"exact_duplicate": 1}},
    ]
    assert (ledger.rows_in, ledger.malformed) == (4, 1)
    assert str(ledger.first_malformed) == "f:2: parse_json: why"
    ledger.check(2)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert lines[0] == {"file": "f", "line": 2, "reason": "parse_json", "detail": "why", "raw": "raw"}
    assert len(lines) == 2


def test_a_lost_row_is_noticed(tmp_path: Path) -> None:
    with Ledger(tmp_path / "r.jsonl") as ledger:
        list(ledger.keep("read", [1, 2, 3]))
    with pytest.raises(RuntimeError, match="3 in, 2 out, 0 rejected"):
        ledger.check(2)


def test_a_duplicate_is_not_malformed(tmp_path: Path) -> None:
    with Ledger(tmp_path / "r.jsonl") as ledger:
        list(ledger.keep("read", [refuse(1, Reason.EXACT_DUPLICATE), refuse(2, Reason.EMPTY_ANSWER)]))
    assert ledger.malformed == 0
    assert ledger.first_malformed is None


def test_raw_is_cut_at_4096_bytes_between_characters() -> None:
    assert shorten("\u00e9" * 5000) == "\u00e9" * 2048
    assert shorten("a" + "\u00e9" * 5000) == "a" + "\u00e9" * 2047


def test_lone_surrogates_are_spelled_out(tmp_path: Path) -> None:
    with Ledger(tmp_path / "r.jsonl") as ledger:
        list(ledger.keep("read", [refuse(1, Reason.ENCODING, "a\ud800b")]))
    assert json.loads((tmp_path / "r.jsonl").read_text())["raw"] == "a\\ud800b"
