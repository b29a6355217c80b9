"""Votes as files: JSON lines of judgements, and sheets (CSV) for people who judge away from the desk.

A sheet shows answers under letters. Which answer a letter stands for is kept at home, in the key file beside the store, under the
random-looking id of each line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import write_json
from ftcli.core.errors import BadData, FtcliError, UsageError
from ftcli.human.desk import Desk, message_text, parts
from ftcli.human.store import Store
from ftcli.human.tasks import Item, Judgement, Task, judgement_from, to_json

LETTERS = "ABCDEFGH"
RANKING, VERDICT, NOTE, REASON = "ranking", "verdict", "note", "reason"
ALL_TIE, ALL_BAD, SKIP = "TIE", "BAD", "SKIP"
REVIEWS = ("accept", "reject", "skip")
FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
"""What a spreadsheet would run. https://owasp.org/www-community/attacks/CSV_Injection"""
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
HOW = {
    "rank": "In the column ranking, write the letters with the best first: B>A, or B>A=C where A and C tie.\n"
    "With two answers the letter of the better one is enough. TIE: all are equally good. BAD: none is good. SKIP: you cannot say.",
    "review": "In the column verdict, write accept, reject or skip, and in the column reason why, if you like.",
}


@dataclass(frozen=True)
class Imported:
    """Lines of an imported file: ``new`` judgements, ``known`` ones that stood already, and lines that were left ``blank``."""

    new: int
    known: int
    blank: int = 0


# ---- JSON lines


def export_jsonl(store: Store, path: Path, tasks: Sequence[str] | None = None) -> int:
    """Write the judgements that stand, of ``tasks`` or of all; return their number."""
    wanted = [task.id for task in store.tasks()] if tasks is None else tasks
    lines = [to_json(one) for task in wanted for one in store.judgements(task)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def read_jsonl(path: Path) -> list[Judgement]:
    """Raises `BadData` naming file and line for what is no judgement."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        with _at(path, number):
            found.append(judgement_from(_object(line)))
    return found


def import_jsonl(store: Store, path: Path) -> Imported:
    """Add the judgements of a file to the store: all, or none if one of them is refused.

    Raises `BadData` naming file and line for an unknown task or item, a judgement that cannot be, or a showing that came before.
    """
    return _import(store, path, list(enumerate(read_jsonl(path), start=1)), blank=0)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadData(f"no valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadData("a JSON object is needed")
    return value


def _import(store: Store, path: Path, given: Sequence[tuple[int, Judgement]], blank: int) -> Imported:
    lines: dict[tuple[str, str, str, bool], int] = {}
    standing = {_showing(one): one for task in store.tasks() for one in store.judgements(task.id)}
    new = []
    for number, one in given:
        with _at(path, number):
            store.check(one)
            if _showing(one) in lines:
                raise BadData(f"line {lines[_showing(one)]} has that grader's judgement of this showing already")
        lines[_showing(one)] = number
        known = standing.get(_showing(one))
        if known is None or replace(known, at="", seconds=0.0) != replace(one, at="", seconds=0.0):
            new.append(one)
    store.judge_all(new)
    return Imported(len(new), len(given) - len(new), blank)


def _showing(one: Judgement) -> tuple[str, str, str, bool]:
    return one.task, one.item, one.grader, one.is_repeat


@contextmanager
def _at(path: Path, number: int) -> Iterator[None]:
    """Names the file and line in the errors of a block."""
    try:
        yield
    except FtcliError as error:
        raise BadData(f"{path}:{number}: {error.message}", error.hint) from None


# ---- sheets


def key_file(store: Store) -> Path:
    return store.path.parent / "sheet-keys.json"


def export_sheets(desk: Desk, folder: Path) -> list[Path]:
    """Write what each grader has still to judge into ``folder``: one sheet for each grader and task, and how to fill them in.

    Raises `UsageError` if a file is there already: somebody may have filled it in.
    """
    contents: dict[Path, str] = {}
    keys: dict[str, Any] = {}
    for number, task in enumerate(desk.store.tasks(), start=1):
        for grader in desk.graders:
            rows = list(_rows(desk, task, grader, keys))
            if len(rows) > 1:
                path = folder / f"{number}-{task.kind}-{grader.replace(' ', '_')}.csv"
                contents[path] = _csv(rows)
                contents[folder / f"{number}-{task.kind}.txt"] = (
                    f"{task.title}\n\n{task.guidelines}\n\n{HOW[task.kind]}\n"
                )
    for path in contents:
        if path.exists():
            raise UsageError(f"{path}: it is there already", "name another folder, or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(key_file(desk.store), {**_keys(desk.store), **keys})
    for path, text in contents.items():
        path.write_text(text, encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8", newline="")
    return [path for path in contents if path.suffix == ".csv"]


def _rows(desk: Desk, task: Task, grader: str, keys: dict[str, Any]) -> Iterator[list[str]]:
    """The header and the lines of a sheet; ``keys`` is told what each line stands for."""
    open_showings = desk.open_showings(task, grader)
    letters = list(LETTERS[: max((len(one.order) for one in open_showings), default=0)])
    yield ["id", "prompt", *letters, RANKING, NOTE] if task.kind == "rank" else ["id", "row", VERDICT, REASON]
    for showing in open_showings:
        key = {
            "task": task.id,
            "item": showing.item,
            "grader": grader,
            "order": showing.order,
            "is_repeat": showing.is_repeat,
        }
        id = "r" + hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        keys[id] = key
        item = desk.store.item(task.id, showing.item)
        yield [
            id,
            *(_row_cells(item) if task.kind == "review" else _answer_cells(item, showing.order, len(letters))),
            "",
            "",
        ]


def _answer_cells(item: Item, order: Sequence[str], width: int) -> list[str]:
    texts = {one.id: one.text for one in item.distinct}
    prompt = "\n\n".join(": ".join(message_text(one)) for one in item.prompt)
    return [prompt, *(texts[id] for id in order), *[""] * (width - len(order))]


def _row_cells(item: Item) -> list[str]:
    return ["\n\n".join(f"{label}: {text}" for _, label, text in parts(item.row or {}))]


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that a spreadsheet shows and does not run, with hidden characters as their code points."""
    shown = HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text.replace("\r\n", "\n"))
    return f"'{shown}" if FORMULA.match(shown) else shown


def import_sheet(store: Store, path: Path) -> Imported:
    """Add what a sheet says: all of it, or nothing if a line is refused. Lines that nobody filled in are counted.

    Raises `BadData` naming file and line for an id that no sheet of this store has, a letter that the line does not have, ...
    """
    keys, found, blank = _keys(store), [], 0
    for number, row in _sheet_rows(path):
        with _at(path, number):
            key = keys.get(row["id"].strip())
            if key is None:
                raise BadData(
                    f"no sheet of {store.path.parent} has the id {row['id']!r}", "is the sheet of another run?"
                )
            judgement = _from_row(key, store.task(key["task"]), row)
            if judgement is None:
                blank += 1
            else:
                found.append((number, judgement))
    return _import(store, path, found, blank)


def _keys(store: Store) -> dict[str, Any]:
    path = key_file(store)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _sheet_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Each line by its first line number, with commas, semicolons or tabs between its cells, as spreadsheets save them."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: no UTF-8 ({error.reason})", "save the sheet as CSV UTF-8") from None
    delimiter = next((one for one in ";\t" if text.startswith(f"id{one}")), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadData(f"{path}:{number}: no valid CSV ({error})") from None
        if cells is None:
            break
        if not names:
            names = [name.strip() for name in cells]
            if "id" not in names or not {RANKING, VERDICT} & set(names):
                raise BadData(
                    f"{path}:1: the columns id, and ranking or verdict, are needed", "keep the sheet's first line"
                )
        elif any(cells):
            yield number, dict(zip(names, [*cells, *[""] * len(names)], strict=False))
    if not names:
        raise BadData(f"{path}: it is empty")


def _from_row(key: Mapping[str, Any], task: Task, row: Mapping[str, str]) -> Judgement | None:
    """What one line says, or None where nothing was filled in."""
    said = row.get(RANKING if task.kind == "rank" else VERDICT, "").strip()
    if not said:
        return None
    order = tuple(key["order"])
    common = {name: key[name] for name in ("task", "item", "grader", "is_repeat")}
    texts = {name: row.get(name, "").strip() for name in (NOTE, REASON)}
    if task.kind == "review":
        if said.lower() not in REVIEWS:
            raise BadData(f"verdict {said!r}: accept, reject or skip is needed", "rows are edited at the desk")
        return judgement_from({**common, **texts, "verdict": said.lower(), "order": order})
    word = said.upper()
    if word in (ALL_BAD, SKIP):
        return judgement_from({**common, **texts, "verdict": "skip" if word == SKIP else "both_bad", "order": order})
    return judgement_from({**common, **texts, "verdict": "ranked", "order": order, "ranks": _ranks(word, order)})


def _ranks(word: str, order: Sequence[str]) -> dict[str, int]:
    """Ranks by candidate id from ``B>A=C``: 1 for B, 2 for A and C."""
    letters = LETTERS[: len(order)]
    if word == ALL_TIE:
        return dict.fromkeys(order, 1)
    if len(order) == 2 and word in letters:
        word = f"{word}>{letters.replace(word, '')}"
    groups = [[letter.strip() for letter in group.split("=")] for group in word.split(">")]
    named = [letter for group in groups for letter in group]
    if sorted(named) != list(letters):
        raise BadData(
            f"ranking {word!r}: each of the letters {', '.join(letters)} once is needed, with > or = between them",
            f"or {ALL_TIE}, {ALL_BAD}, {SKIP}",
        )
    ranks, rank = {}, 1
    for group in groups:
        for letter in group:
            ranks[order[letters.index(letter)]] = rank
        rank += len(group)
    return ranks
