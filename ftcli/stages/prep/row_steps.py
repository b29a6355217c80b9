"""The first pass: everything that one row decides alone, from reading to its length.

The stream of records is cut into chunks, and a process handles every ``world``-th of them, skipping the rest unparsed. So one
process, several, or the tasks of a cluster write the same bytes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import xxhash

from ftcli.core.errors import BadData
from ftcli.data.boilerplate import check_boilerplate
from ftcli.data.chat import stop_token_ids
from ftcli.data.clean import STEPS, clean_row, require_text
from ftcli.data.conflicts import may_be_label
from ftcli.data.consistency import Consistency
from ftcli.data.dedup import keys_of, split_key, whole_of
from ftcli.data.formats import rename, to_row
from ftcli.data.language import language_of, require_language
from ftcli.data.lengths import Length, characters, measure, truncated
from ftcli.data.minhash import band_keys
from ftcli.data.pii import Policy, guard, withheld
from ftcli.data.records import MALFORMED, Reason, Record, Refused, Reject, RowNotes, raw_json
from ftcli.data.rows import Row, uses_tools
from ftcli.data.rules import apply_rules
from ftcli.data.shingles import shingle
from ftcli.data.sources.open import open_source
from ftcli.data.synthetic import is_synthetic
from ftcli.data.texts import answer_text, prompt_text
from ftcli.stages.prep.chunks import (
    CHUNK_ROWS,
    NEAR_BANDS,
    NEAR_ROWS,
    Chunk,
    Tally,
    chunk_name,
    columns_of,
    row_id,
    write_chunk,
)
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.plan import Plan, kept_columns
from ftcli.stages.prep.stage import load_tokenizer
from ftcli.stages.prep.suspicion import Suspicion, suspicions

ROW_STEPS = ("read", "format", "clean", "rules", "boilerplate", "pii", "empty", "language", "length")


def run_part(plan: Plan, rank: int, world: int, on_chunk: Callable[[int], None] = lambda rows: None) -> None:
    """Handle the chunks of process ``rank`` of ``world`` that are not there yet."""
    folder = Path(plan.folder)
    steps = RowSteps(plan)
    notes: list[str] = []
    for number, source in enumerate(plan.sources):

        @lru_cache(maxsize=8)
        def is_missing(chunk: int, number: int = number) -> bool:
            return not (folder / chunk_name(number, chunk)).exists()

        def is_owned(index: int) -> bool:
            chunk = index // CHUNK_ROWS
            return chunk % world == rank and is_missing(chunk)

        records = open_source(source.ref, Path(source.path), notes, is_owned)
        for chunk, part in _chunks(records):
            if is_owned(chunk * CHUNK_ROWS):
                done = steps.run(part, number)
                write_chunk(folder, chunk_name(number, chunk), done, notes)
                on_chunk(done.tally.rows_in)
    if notes:  # some come after the last chunk of this process
        (folder / f".notes-{rank:05d}").write_text(json.dumps(notes), encoding="utf-8")


def _chunks(records: Iterator[Record | Reject | None]) -> Iterator[tuple[int, list[Record | Reject]]]:
    """Consecutive records in chunks; those of other processes are None and left out."""
    part: list[Record | Reject] = []
    index = -1
    for index, record in enumerate(records):
        if record is not None:
            part.append(record)
        if index % CHUNK_ROWS == CHUNK_ROWS - 1:
            yield index // CHUNK_ROWS, part
            part = []
    if part:
        yield index // CHUNK_ROWS, part


def run_all(plan: Plan, workers: int, on_chunk: Callable[[int], None]) -> None:
    """The whole first pass on this machine, in ``workers`` processes."""
    Path(plan.folder).mkdir(parents=True, exist_ok=True)
    if workers == 1:
        run_part(plan, 0, 1, on_chunk)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy this process's threads half
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        parts = [pool.submit(run_part, plan, rank, workers) for rank in range(workers)]
        for part in parts:
            part.result()


class RowSteps:
    """The row-local steps of one plan. ``run`` is a pure function of its records."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.config = PrepConfig.model_validate(plan.config)
        self.cleanings = tuple(step for step in STEPS if getattr(self.config, f"clean_{step}"))
        self.pii = Policy(self.config.pii, self.config.secrets)
        self.tokenizer = load_tokenizer(plan.tokenizer) if plan.tokenizer else None
        self.stop_ids = stop_token_ids(self.tokenizer) if self.tokenizer else frozenset()
        self.kept_columns = kept_columns(self.config)

    def run(self, records: list[Record | Reject], source: int) -> Chunk:
        tally, rejects, flags = Tally(rows_in=len(records)), [], []
        kept: list[tuple[Record, Row, tuple[str, float]]] = []

        def refuse(step: str, item: Reject) -> None:
            if item.reason in MALFORMED:
                if self.config.strict:
                    raise BadData(str(item), "correct it, or run without --strict")
                tally.first_malformed = tally.first_malformed or str(item)
            tally.refuse(step, item)
            rejects.append(replace(item, raw=withheld(item.raw, self.pii)).to_json())

        cleaned = [self._cleaned(record, source) for record in records]
        suspected = suspicions([item.row for item in cleaned if isinstance(item, _Cleaned)], self.config.rules)
        for record, item in zip(records, cleaned, strict=True):
            tally.file_rows[record.file] += 1
            if isinstance(item, _Refusal):
                refuse(item.step, item.reject)
                continue
            found = self._checked(item, next(suspected))
            if isinstance(found, _Refusal):
                refuse(found.step, found.reject)
                continue
            tally.changed.update(item.notes.changed)
            kept.append((item.record, *found))
            flags.append(item.notes.flags)
        measured = self._lengths(kept, tally, refuse)
        return self._columns(source, measured, kept, flags, rejects, tally)

    def _cleaned(self, record: Record | Reject, source: int) -> _Cleaned | _Refusal:
        if isinstance(record, Reject):
            return _Refusal("read", record)
        config, plan = self.config, self.plan.sources[source]
        step, notes = "format", RowNotes()
        try:
            row = to_row(rename(record, config.map), plan.format, notes, self.kept_columns, plan.row_type)
            if len(self.plan.sources) > 1:
                row = {**row, "meta": {**row["meta"], "source": plan.label}}
            step = "clean"
            return _Cleaned(record, clean_row(row, self.cleanings, notes), notes)
        except Refused as refused:
            return _Refusal(step, _reject(record, refused))

    def _checked(self, item: _Cleaned, suspicion: Suspicion) -> tuple[Row, tuple[str, float]] | _Refusal:
        """The row as it will be written, and its language with probability."""
        config, row, notes = self.config, item.row, item.notes
        step = "rules"
        try:
            if suspicion.rules:
                row = apply_rules(row, config.rules, notes)
            step = "boilerplate"
            if suspicion.boilerplate:
                row = check_boilerplate(row, config.boilerplate, notes)
            step = "pii"
            if suspicion.pii or row is not item.row:  # what a rule has changed was not asked about
                row = guard(row, self.pii, notes)
            step = "empty"
            row = require_text(row)
            if config.min_answer_chars > 1 and 0 < len(answer_text(row)) < config.min_answer_chars:
                raise Refused(Reason.TOO_SHORT, f"an answer of {len(answer_text(row))} characters")
            step = "language"
            language = language_of(row) if config.detect_language else ("", 0.0)
            if config.keep_languages:
                require_language(language, config.keep_languages, config.min_language_probability)
        except Refused as refused:
            return _Refusal(step, _reject(item.record, refused))
        return row, language

    def _lengths(
        self,
        kept: list[tuple[Record, Row, tuple[str, float]]],
        tally: Tally,
        refuse: Callable[[str, Reject], None],
    ) -> list[tuple[Row, Length | None] | None]:
        """Each kept row with its length in tokens, if they can be counted, and shortened if so wished; None for those refused."""
        rows = [row for _, row, _ in kept]
        if self.tokenizer is None:
            return [(row, None) for row in rows]
        limit = self.config.max_length
        found: list[tuple[Row, Length | None] | None] = []
        for (record, row, _), length in zip(kept, measure(rows, self.tokenizer, self.stop_ids), strict=True):
            if limit is None or length.total <= limit:
                found.append((row, length))
                continue
            tally.too_long += 1
            try:
                found.append(self._shortened(row, length, limit, tally))
            except Refused as refused:
                refuse("length", _reject(record, refused))
                found.append(None)
        return found

    def _shortened(self, row: Row, length: Length, limit: int, tally: Tally) -> tuple[Row, Length]:
        if self.config.too_long == "keep":
            return row, length
        if self.config.too_long == "reject":
            raise Refused(Reason.TOO_LONG, f"{length.total} tokens, at most {limit} wanted")
        shorter, cut = truncated(row, self.tokenizer, self.stop_ids, limit)
        tally.changed["truncated"] += 1
        tally.tokens_lost += length.trained - cut.trained
        return shorter, cut

    def _columns(
        self,
        source: int,
        measured: list[tuple[Row, Length | None] | None],
        kept: list[tuple[Record, Row, tuple[str, float]]],
        flags: list[list[tuple[str, str]]],
        rejects: list[dict[str, Any]],
        tally: Tally,
    ) -> Chunk:
        config = self.config
        lines, entries, flag_lines, texts = [], [], [], []
        style = Consistency()
        offset = 0
        for item, (_, _, (code, _)), row_flags in zip(measured, kept, flags, strict=True):
            if item is None:
                continue
            row, length = item
            meta = row["meta"]
            prompt, answer = prompt_text(row), answer_text(row)
            length = length or characters(prompt, answer)
            text = whole_of(prompt, answer)
            texts.append(text)
            keys = keys_of(row, text if config.number_guard else "")
            name = row_id(keys.exact)
            content = orjson.dumps({part: value for part, value in row.items() if part not in ("id", "meta")})
            line = b'{"id":"%s",%s,"meta":%s}\n' % (name.encode(), content[1:-1], orjson.dumps(meta))
            lines.append(line)
            if row_flags:
                tally.flags.update({kind for kind, _ in row_flags})
            flag_lines += [
                {"id": name, "file": meta["file"], "line": meta["line"], "kind": kind, "detail": detail}
                for kind, detail in row_flags
            ]
            if answer:
                style.add(answer, (meta["file"], meta["line"]))
            entries.append(
                (
                    offset,
                    len(line) - 1,
                    source,
                    min(turns_of(row), 255),
                    uses_tools(row),
                    may_be_label(row),
                    is_synthetic(meta),
                    code.encode(),
                    split_key(keys.exact),
                    xxhash.xxh3_64_intdigest(content),
                    keys.prompt,
                    keys.opening,
                    keys.answer,
                    keys.guard,
                    _column_key(meta, config.group_by),
                    _column_key({**meta, "language": code, "source": str(source)}, config.stratify_by),
                    length.total - length.trained,
                    length.trained,
                    length.total,
                    (0,) * NEAR_BANDS,
                )
            )
            offset += len(line)
        columns = columns_of(entries)
        if self.config.near_duplicates != "off" and texts:
            columns["near"] = band_keys(shingle(texts), NEAR_BANDS, NEAR_ROWS)
        return Chunk(lines, rejects, flag_lines, columns, tally, style)


class _Cleaned(NamedTuple):
    record: Record
    row: Row
    notes: RowNotes


class _Refusal(NamedTuple):
    step: str
    reject: Reject


def _reject(record: Record, refused: Refused) -> Reject:
    return Reject(record.file, record.line, refused.reason, refused.detail, raw_json(record.value))


def _column_key(meta: dict[str, Any], name: str | None) -> int:
    """A digest of the value of column ``name``, 0 where the row has none."""
    value = meta.get(name) if name else None
    return 0 if value in (None, "") else xxhash.xxh3_64_intdigest(str(value).encode()) | 1


def turns_of(row: Row) -> int:
    """Answers in a conversation; 1 for a row of any other kind but a bare prompt or text, which have none."""
    if "messages" in row:
        return sum(message["role"] == "assistant" for message in row["messages"])
    return 0 if "text" in row or set(row) <= {"id", "prompt", "meta", "tools"} else 1


def worker_count(wanted: int | None, source_bytes: int) -> int:
    """Processes for the first pass: as many as wanted, else the machine's cores where the source is worth it."""
    if wanted is not None:
        return wanted
    return (
        (os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1)
        if (source_bytes > WORTH_BYTES)
        else 1
    )


WORTH_BYTES = 32 * 2**20
"""Smaller sources are read by one process: starting another takes a second or two."""
