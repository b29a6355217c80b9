"""Every row read is counted once: as kept, or as refused by one step for one reason."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ftcli.data.records import Reason, Reject
from ftcli.stages.prep.chunks import Tally
from ftcli.stages.prep.prepare import check_ledger
from ftcli.stages.prep.statistics import ledger_of


def refuse(line: int, reason: Reason) -> Reject:
    return Reject("f", line, reason, "why", "raw")


def store_of(rows_in: int) -> Any:
    return SimpleNamespace(tally=Tally(rows_in=rows_in))


def test_refused_rows_are_counted_by_step_reason_and_file() -> None:
    tally = Tally(rows_in=4)
    tally.refuse("read", refuse(2, Reason.PARSE_JSON))
    tally.refuse("format", refuse(3, Reason.TYPE_ERROR))
    tally.refuse("pii", refuse(4, Reason.PII))
    assert tally.refused == {"read/parse_json": 1, "format/type_error": 1, "pii/pii": 1}
    assert tally.file_refused == {"f": 3}
    assert tally.malformed == 2


def test_a_duplicate_or_an_empty_answer_is_not_malformed() -> None:
    tally = Tally(rows_in=2)
    tally.refuse("exact duplicates", refuse(1, Reason.EXACT_DUPLICATE))
    tally.refuse("empty", refuse(2, Reason.EMPTY_ANSWER))
    assert tally.malformed == 0


def test_tallies_add_up_and_the_earlier_malformed_row_is_the_first() -> None:
    one, other = Tally(rows_in=3, first_malformed="f:2"), Tally(rows_in=2, first_malformed="f:9")
    one.refuse("read", refuse(2, Reason.PARSE_JSON))
    other.refuse("read", refuse(9, Reason.PARSE_JSON))
    one.add(other)
    assert (one.rows_in, one.refused, one.first_malformed) == (5, {"read/parse_json": 2}, "f:2")


def test_each_step_gets_what_the_one_before_it_kept() -> None:
    refused = Counter({"read/parse_json": 1, "exact duplicates/exact_duplicate": 2, "empty/empty_answer": 1})
    steps = {step["step"]: step for step in ledger_of(10, refused)}
    assert steps["read"] == {"step": "read", "rows_in": 10, "rows_out": 9, "rejected": {"parse_json": 1}}
    assert (steps["empty"]["rows_in"], steps["empty"]["rows_out"]) == (9, 8)
    assert (steps["exact duplicates"]["rows_in"], steps["exact duplicates"]["rows_out"]) == (8, 6)
    assert list(steps)[-1] == "limit"
    assert steps["limit"]["rows_out"] == 6


@pytest.mark.parametrize("rows_in", [4, 6])
def test_a_lost_row_and_one_from_nowhere_are_noticed(rows_in: int) -> None:
    decisions: Any = SimpleNamespace(refusal=np.array([0, 0, 1], np.uint8))
    refused = Counter({"read/parse_json": 2, "exact duplicates/exact_duplicate": 1})
    check_ledger(store_of(5), decisions, refused)
    with pytest.raises(RuntimeError, match=f"{rows_in} in, 2 out, 3 rejected"):
        check_ledger(store_of(rows_in), decisions, refused)
