"""Votes as files: nothing is lost on the way out and in, and what does not fit is refused with its line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, UsageError
from ftcli.human.desk import Desk
from ftcli.human.store import Candidate, Item, Judgement, Store
from ftcli.human.votes import export_jsonl, export_sheets, import_jsonl, import_sheet, key_file, read_jsonl
from tests.human.conftest import answers, pair, rank_task, review_item, review_task, vote

PAIRS = [pair(number, "base-model-label", "tuned-model-label") for number in range(5)]


def make(path: Path) -> Store:
    store = Store(path)
    store.publish(rank_task(), PAIRS)
    store.publish(rank_task(id="rank-3"), [answers(number, 3) for number in range(2)])
    store.publish(review_task(), [review_item(number) for number in range(2)])
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make(tmp_path / "human" / "desk.sqlite")


# ---- JSON lines


def test_votes_go_out_and_come_in_as_they_were(store: Store, tmp_path: Path) -> None:
    row = {**(review_item(0).row or {}), "text": "new \u2028 line"}
    store.judge(vote(PAIRS[0], strength=4, note="é\n\x85", at="2026-01-01T00:00:00+00:00"))
    store.judge(vote(PAIRS[0], "bob", is_repeat=True))
    store.judge(vote(PAIRS[1]))
    store.undo("rank-1", "ann")
    store.judge(Judgement(task="review-1", item="r0", grader="ann", verdict="edit", edited=row))
    assert export_jsonl(store, tmp_path / "v.jsonl") == 3
    other = make(tmp_path / "other.sqlite")
    added = import_jsonl(other, tmp_path / "v.jsonl")
    assert (added.new, added.known) == (3, 0)
    for task in ("rank-1", "review-1"):
        assert other.judgements(task) == store.judgements(task)
    again = import_jsonl(other, tmp_path / "v.jsonl")
    assert (again.new, again.known) == (0, 3)


def test_one_task_alone_can_be_exported(store: Store, tmp_path: Path) -> None:
    store.judge(vote(PAIRS[0]))
    store.judge(Judgement(task="review-1", item="r0", grader="ann", verdict="accept"))
    assert export_jsonl(store, tmp_path / "v.jsonl", ["review-1"]) == 1
    assert [one.task for one in read_jsonl(tmp_path / "v.jsonl")] == ["review-1"]


GOOD: dict[str, Any] = {
    "task": "rank-1",
    "item": "i0",
    "grader": "ann",
    "verdict": "skip",
    "order": [c.id for c in PAIRS[0].candidates],
}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no valid JSON"),
        ("", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ("[1]", "a JSON object"),
        ({**GOOD, "extra": 1}, "unknown key extra"),
        ({**GOOD, "item": "nope"}, "no item nope"),
        ({**GOOD, "task": "nope"}, "no task nope"),
        ({**GOOD, "grader": "=cmd()"}, "grader"),
        ({**GOOD, "grader": 1}, "grader: a text"),
        ({"task": "rank-1", "item": "i0", "grader": "ann"}, "no verdict"),
        ({**GOOD, "ranks": [1, 2]}, "ranks: an object"),
        ({**GOOD, "ranks": {"a": True}}, "ranks: an object"),
        ({**GOOD, "order": "ab"}, "order: a list"),
        ({**GOOD, "order": ["A", "B"]}, "order: every answer"),
        ({**GOOD, "criteria": {"a": 1}}, "criteria: an object"),
        ({**GOOD, "strength": 1.5}, "strength"),
        ({**GOOD, "seconds": "3"}, "seconds: a number"),
        ({**GOOD, "is_repeat": 1}, "is_repeat"),
        ({**GOOD, "edited": []}, "edited: a row"),
        ({**GOOD}, "line 1 has that grader's judgement"),
    ],
)
def test_a_line_that_does_not_fit_is_named_and_nothing_is_imported(
    store: Store, tmp_path: Path, line: Any, message: str
) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(BadData) as caught:
        import_jsonl(store, path)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert message in caught.value.message
    assert store.judgements("rank-1") == []


# ---- sheets


def sheet(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def pairs_sheet(store: Store, tmp_path: Path) -> Path:
    written = export_sheets(Desk(store, ["ann"]), tmp_path / "out")
    assert [path.name for path in written] == ["1-rank-ann.csv", "2-rank-ann.csv", "3-review-ann.csv"]
    return written[0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_filled_in_sheet_says_what_its_letters_stood_for(store: Store, pairs_sheet: Path, delimiter: str) -> None:
    rows = sheet(pairs_sheet)
    texts = {one.id: one.text for item in PAIRS for one in item.candidates}
    said = ["A", "b > a", "A=B", "bad", "Skip", ""]
    for row, ranking in zip(rows, said, strict=True):
        row["ranking"] = ranking
    rows[1]["note"] = "line one\nline two"
    fill(pairs_sheet, rows, delimiter)
    added = import_sheet(store, pairs_sheet)
    assert (added.new, added.known, added.blank) == (5, 0, 1)
    for row, one in zip(rows, store.judgements("rank-1"), strict=False):
        assert [texts[id] for id in one.order] == [row["A"], row["B"]]
    found = [(one.verdict, [one.ranks.get(id) for id in one.order], one.note) for one in store.judgements("rank-1")]
    assert found == [
        ("ranked", [1, 2], ""),
        ("ranked", [2, 1], "line one\nline two"),
        ("ranked", [1, 1], ""),
        ("both_bad", [None, None], ""),
        ("skip", [None, None], ""),
    ]
    again = import_sheet(store, pairs_sheet)
    assert (again.new, again.known, again.blank) == (0, 5, 1)


def test_three_answers_are_ranked_with_ties(store: Store, pairs_sheet: Path) -> None:
    path = pairs_sheet.with_name("2-rank-ann.csv")
    rows = sheet(path)
    rows[0]["ranking"], rows[1]["ranking"] = "C>A=B", "TIE"
    fill(path, rows)
    import_sheet(store, path)
    assert [[one.ranks[id] for id in one.order] for one in store.judgements("rank-3")] == [[2, 2, 1], [1, 1, 1]]


def test_rows_are_accepted_and_rejected_on_a_sheet(store: Store, pairs_sheet: Path) -> None:
    path = pairs_sheet.with_name("3-review-ann.csv")
    rows = sheet(path)
    assert "secret-teacher" not in path.read_text()
    rows[0] |= {"verdict": "Accept"}
    rows[1] |= {"verdict": "reject", "reason": "wrong"}
    fill(path, rows)
    import_sheet(store, path)
    assert [(one.verdict, one.reason) for one in store.judgements("review-1")] == [("accept", ""), ("reject", "wrong")]


def test_sheets_name_no_model_and_the_key_stays_beside_the_store(store: Store, pairs_sheet: Path) -> None:
    files = list(pairs_sheet.parent.iterdir())
    assert len(files) == 6  # a text beside each kind of sheet says how
    for path in files:
        text = path.read_text()
        assert "model-label" not in text
        assert not any(one.id in text for item in PAIRS for one in item.candidates)
    assert key_file(store).parent == store.path.parent != pairs_sheet.parent


def test_what_is_judged_is_on_no_sheet_and_earlier_sheets_stay_good(
    store: Store, pairs_sheet: Path, tmp_path: Path
) -> None:
    early = sheet(pairs_sheet)
    early[0]["ranking"] = "A"
    fill(pairs_sheet, early)
    import_sheet(store, pairs_sheet)
    (later, *_) = export_sheets(Desk(store, ["ann", "bob"], overlap=2), tmp_path / "later")
    assert len(sheet(later)) == len(early) - 1
    early[1]["ranking"] = "B"
    fill(pairs_sheet, early)
    assert import_sheet(store, pairs_sheet).new == 1


def test_a_sheet_that_is_there_is_not_written_over(store: Store, pairs_sheet: Path) -> None:
    with pytest.raises(UsageError, match=r"1-rank-ann\.csv: it is there already"):
        export_sheets(Desk(store, ["ann"]), pairs_sheet.parent)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\n=", "\t=", "\r=", "\uff1d"])
def test_a_spreadsheet_runs_nothing_that_a_model_wrote(tmp_path: Path, start: str) -> None:
    store = Store(tmp_path / "desk.sqlite")
    evil = f'{start}HYPERLINK("http://evil.example")'
    store.publish(rank_task(), [Item("a", [], (Candidate.of(evil, "a"), Candidate.of("fine \u202egnp", "b")))])
    (path,) = export_sheets(Desk(store, ["ann"]), tmp_path / "out")
    cells = [cell for row in sheet(path) for cell in row.values()]
    assert not any(cell.lstrip()[:1] in tuple("=+-@\uff1d") for cell in cells if cell)
    assert any("HYPERLINK" in cell for cell in cells)
    assert "fine [U+202E]gnp" in cells


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "rffffffffffff"}, "no sheet of"),
        ({"id": ""}, "no sheet of"),
        ({"ranking": "C"}, "letters A, B once"),
        ({"ranking": "A>B>C"}, "letters A, B once"),
        ({"ranking": "A>A"}, "letters A, B once"),
        ({"ranking": ">"}, "letters A, B once"),
        ({"ranking": "good"}, "letters A, B once"),
        ({"ranking": "A", "note": "x" * 2001}, "2000 characters"),
    ],
)
def test_a_line_of_a_sheet_that_does_not_fit_is_named(
    store: Store, pairs_sheet: Path, changes: dict[str, str], message: str
) -> None:
    rows = sheet(pairs_sheet)
    rows[0] |= {"ranking": "A", "note": "two\nlines"}
    rows[1] |= changes
    fill(pairs_sheet, rows)
    with pytest.raises(BadData) as caught:
        import_sheet(store, pairs_sheet)
    assert caught.value.message.startswith(f"{pairs_sheet}:4: ")  # the line before has two lines
    assert message in caught.value.message
    assert store.judgements("rank-1") == []


def test_a_line_that_is_there_twice_is_refused(store: Store, pairs_sheet: Path) -> None:
    rows = sheet(pairs_sheet)
    rows[0]["ranking"] = "A"
    fill(pairs_sheet, [rows[0], rows[0]])
    with pytest.raises(BadData, match=":3: line 2 has that grader's judgement"):
        import_sheet(store, pairs_sheet)


def test_a_review_sheet_takes_its_own_words_alone(store: Store, pairs_sheet: Path) -> None:
    path = pairs_sheet.with_name("3-review-ann.csv")
    rows = sheet(path)
    rows[0]["verdict"] = "edit"
    fill(path, rows)
    with pytest.raises(BadData, match="verdict 'edit': accept, reject or skip"):
        import_sheet(store, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"a,b\n1,2\n", ":1: the columns id"),
        (b"\xff\xfe\x00", "no UTF-8"),
        (b'id,ranking\n"open', "no valid CSV"),
        (b"id,ranking\nr1,A\n", ":2: no sheet of"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(store: Store, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "sheet.csv"
    path.write_bytes(content)
    with pytest.raises(BadData) as caught:
        import_sheet(store, path)
    assert message in caught.value.message
