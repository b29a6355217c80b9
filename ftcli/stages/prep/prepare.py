"""From a source to a data folder: read, recognise, clean, drop duplicates, limit, split, count.

Each step takes the rows that the one before it kept; the ledger counts and writes down the others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ftcli.core.artifacts import write_json
from ftcli.core.errors import BadData, UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import stop_token_ids
from ftcli.data.clean import STEPS, clean_rows, require_text
from ftcli.data.dedup import drop_duplicates, group_key
from ftcli.data.formats import (
    FORMATS,
    SAMPLE_ROWS,
    FormatName,
    check_columns,
    detect,
    rename,
    require_columns,
    to_rows,
    unused_columns,
)
from ftcli.data.lengths import Length, characters, count_tokens, describe, drop_long
from ftcli.data.records import Ledger, Reason, Record, Reject
from ftcli.data.rows import Row, write_jsonl
from ftcli.data.sources.csv_file import read_csv
from ftcli.data.sources.files import read_files
from ftcli.data.sources.hf import is_saved, read_hub, read_saved
from ftcli.data.sources.jsonl import read_json, read_jsonl
from ftcli.data.sources.parquet import read_parquet
from ftcli.data.sources.pydoc import read_pydoc
from ftcli.data.split import sample_rows, split_rows
from ftcli.stages.prep.config import PrepConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READERS = {".jsonl": read_jsonl, ".json": read_json, ".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet}
WATCH_ROWS = 2000
PARTS = 4
"""Parts of the work that progress counts: rows, tokens, split, files."""


def prepare(ctx: Context[PrepConfig], tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Fill the output ``data``. Raises `BadData` if nothing usable is left or too many rows are malformed."""
    config, source, folder = ctx.config, ctx.one("source"), ctx.output("data")
    if config.max_row_tokens and tokenizer is None:
        raise UsageError("max_row_tokens needs a tokenizer to count with", "give the model: --model demo:smollm2")
    started = time.monotonic()
    notes: list[str] = []
    changes: Counter[str] = Counter()
    with Ledger(folder / "rejects.jsonl") as ledger:
        raw = ledger.keep("read", open_source(source, notes))
        name, records = recognise(raw, config, source.ref, ledger, notes)
        cleaned = clean(ledger.keep("format", to_rows(records, name)), config, changes, ledger)
        rows = list(watch(ledger.keep("duplicates", drop_duplicates(cleaned)), ctx.events))
        check_usable(rows, config, source.ref, ledger)
        ctx.events.progress("prep", 1, PARTS, rows=len(rows))
        rows = select(rows, config, tokenizer, ledger)
        check_usable(rows, config, source.ref, ledger)
    ctx.events.progress("prep", 2, PARTS, rows=len(rows))
    tokens = tokens_of(rows, tokenizer)
    ctx.events.progress("prep", 3, PARTS, rows=len(rows))
    splits = split_rows(rows, config.validation_share, config.test_share, config.seed)
    ledger.check(sum(write_jsonl(folder / f"{split}.jsonl", part) for split, part in splits.items()))
    stats = {
        "source": source.path.name if is_path(source.ref) else source.ref,
        "notes": notes,
        "format": name,
        "row_type": str(FORMATS[name].row_type),
        **ledger_stats(ledger, len(rows)),
        "cleaning": dict(changes),
        "splits": {split: {"rows": len(part), "prompts": prompts_of(part)} for split, part in splits.items()},
        **length_stats(rows, tokens),
    }
    write_json(folder / "stats.json", stats)
    tell(ctx.events, stats, time.monotonic() - started)


def is_path(ref: str) -> bool:
    return not ref.startswith(("hf:", "pydoc:"))


def open_source(source: Artifact, notes: list[str]) -> Iterator[Record | Reject]:
    """Raw rows of a source; ``notes`` gets what a person should know about it."""
    kind, _, name = source.ref.partition(":")
    if kind == "pydoc":
        return read_pydoc(name, notes)
    if kind == "hf":
        name, _, revision = name.partition("@")
        return read_hub(name, revision or None)
    if source.path.is_dir() and is_saved(source.path):
        return read_saved(source.path, source.path.name)
    return read_files(source.path, READERS, notes)


def recognise(
    raw: Iterator[Record], config: PrepConfig, ref: str, ledger: Ledger, notes: list[str]
) -> tuple[FormatName, Iterator[Record]]:
    """The format, from the config or from the first records, and all records with their columns renamed by ``map``.

    ``notes`` gets a line that names the columns which the format does not read.
    """
    sample = list(islice(raw, SAMPLE_ROWS))
    if not sample:
        check_usable(sample, config, ref, ledger)
    check_columns(sample, config.map)
    renamed = [rename(record, config.map) for record in sample]
    name: FormatName = detect(renamed, config.map) if config.format == "auto" else config.format
    require_columns(renamed, name)
    unused = unused_columns(renamed, name)
    if unused:
        notes.append(f"format {name} does not read the columns {', '.join(unused)}")
    return name, chain(renamed, (rename(record, config.map) for record in raw))


def clean(rows: Iterable[Row], config: PrepConfig, changes: Counter[str], ledger: Ledger) -> Iterator[Row]:
    """Cleaned rows that still say something."""
    steps = [step for step in STEPS if getattr(config, f"clean_{step}")]
    return ledger.keep("empty", require_text(clean_rows(rows, steps, changes)))


def watch(rows: Iterable[Row], events: Events) -> Iterator[Row]:
    for count, row in enumerate(rows):
        if count % WATCH_ROWS == 0:
            events.progress("prep", 0, PARTS, rows=count)
        yield row


def select(rows: list[Row], config: PrepConfig, tokenizer: PreTrainedTokenizerBase | None, ledger: Ledger) -> list[Row]:
    """Rows that are not too long, and of those as many as wanted."""
    if tokenizer is not None and config.max_row_tokens is not None:
        lengths = tokens_of(rows, tokenizer) or []
        rows = list(ledger.keep("length", drop_long(rows, lengths, config.max_row_tokens)))
    if config.limit is not None:
        rows = list(ledger.keep("limit", sample_rows(rows, config.limit, config.seed)))
    return rows


def tokens_of(rows: list[Row], tokenizer: PreTrainedTokenizerBase | None) -> list[Length] | None:
    """The length of each row in tokens, if there is a tokenizer to count them."""
    return list(count_tokens(rows, tokenizer, stop_token_ids(tokenizer))) if tokenizer is not None else None


def check_usable(rows: Sequence[object], config: PrepConfig, ref: str, ledger: Ledger) -> None:
    """Raise `BadData` if the source is empty, too much of it is malformed, or no row of it is left in ``rows``."""
    if not ledger.rows_in:
        raise BadData(f"{ref}: no rows in it", "is it the right file?")
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(ledger.rejected.items()))
    share, first = ledger.malformed / ledger.rows_in, ledger.first_malformed
    if first is not None and share > config.max_reject_rate:
        raise BadData(
            f"{ref}: {ledger.malformed} of {ledger.rows_in} rows are malformed ({counts}), the first is {first}",
            "prepare files of different formats one by one"
            if first.reason is Reason.MISSING_FIELD
            else "correct them, or raise --max-reject-rate",
        )
    if not rows:
        raise BadData(f"{ref}: none of {ledger.rows_in} rows is left ({counts})", "see which settings refuse them")


def prompts_of(rows: Iterable[Row]) -> int:
    """Different prompts, as the split tells them apart."""
    return len({group_key(row) for row in rows})


def ledger_stats(ledger: Ledger, rows_out: int) -> dict[str, Any]:
    return {
        "rows_in": ledger.rows_in,
        "rows_out": rows_out,
        "rejected": dict(sorted(ledger.rejected.items())),
        "ledger": [step.to_json() for step in ledger.steps],
    }


def length_stats(rows: Sequence[Row], tokens: Sequence[Length] | None) -> dict[str, Any]:
    counted = [characters(row) for row in rows]
    stats: dict[str, Any] = {
        "characters": {
            "prompt": describe(prompt for prompt, _ in counted),
            "answer": describe(answer for _, answer in counted),
        }
    }
    if tokens is not None:
        stats["tokens"] = {
            "total": {**describe(item.total for item in tokens), "sum": sum(item.total for item in tokens)},
            "trained": {**describe(item.trained for item in tokens), "sum": sum(item.trained for item in tokens)},
        }
    return stats


def tell(events: Events, stats: Mapping[str, Any], seconds: float) -> None:
    """Say the outcome to people, and record it as metrics and facts."""
    for note in stats["notes"]:
        events.note(note)
    empty = [split for split, part in stats["splits"].items() if not part["rows"]]
    if empty:
        events.note(f"no rows in {', '.join(empty)}: too few different prompts, or a share of 0")
    metrics = {f"data/{split}_rows": part["rows"] for split, part in stats["splits"].items()}
    metrics |= {"data/rows_in": stats["rows_in"], "data/rejected_rows": sum(stats["rejected"].values())}
    if "tokens" in stats:
        metrics["data/tokens"] = stats["tokens"]["total"]["sum"]
    events.metrics(0, metrics)
    events.summarize({**metrics, "format": stats["format"], "row_type": stats["row_type"], "perf/seconds": seconds})
    events.progress("prep", PARTS, PARTS, rows=stats["rows_out"])
