from __future__ import annotations

from ftcli.data.records import Reason, Reject, shorten


def refuse(line: int, reason: Reason, raw: str = "raw") -> Reject:
    return Reject("f", line, reason, "why", raw)


def test_a_reject_says_where_why_and_what() -> None:
    item = refuse(2, Reason.PARSE_JSON)
    assert item.to_json() == {"file": "f", "line": 2, "reason": "parse_json", "detail": "why", "raw": "raw"}
    assert str(item) == "f:2: parse_json: why"


def test_raw_is_cut_at_4096_bytes_between_characters() -> None:
    assert shorten("\u00e9" * 5000) == "\u00e9" * 2048
    assert shorten("a" + "\u00e9" * 5000) == "a" + "\u00e9" * 2047


def test_lone_surrogates_are_spelled_out() -> None:
    assert refuse(1, Reason.ENCODING, "a\ud800b").to_json()["raw"] == "a\\ud800b"
