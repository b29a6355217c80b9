"""Canonical rows in Parquet files.

The columns follow from the row type, not from the first rows, so the splits of a folder always fit together. What has no fixed
shape is a column of Arrow's JSON type: ``meta``, ``tools`` and, if tools are called, whole conversations. As structs, rows would
get each other's keys, as nulls, and some could not be written at all. `datasets.load_dataset` gives all of it back as objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ftcli.core.errors import BadData
from ftcli.data.rows import Row

BATCH_ROWS = 4096
"""Rows of a row group: few enough to hold, enough to compress."""
MESSAGES = pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()}))
TYPES = {
    "id": pyarrow.string(),
    "text": pyarrow.string(),
    "label": pyarrow.bool_(),
    "candidates": pyarrow.list_(pyarrow.struct({"content": pyarrow.string(), "rank": pyarrow.int64()})),
    "messages": MESSAGES,
    "prompt": MESSAGES,
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "completion": MESSAGES,
    "meta": pyarrow.json_(),
    "tools": pyarrow.json_(),
}


def write_parquet(path: Path, rows: Iterable[Row], columns: Sequence[str], with_tools: bool) -> int:
    """Write ``rows`` of ``columns`` (beside ``id``, ``meta`` and ``tools``); return their number.

    Raises `ValueError` for a row with a key that has no column.
    """
    schema = schema_of(columns, with_tools)
    pending, count = iter(rows), 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(pending, BATCH_ROWS)):
            writer.write_table(_table(batch, schema))
            count += len(batch)
    return count


def schema_of(columns: Sequence[str], with_tools: bool) -> pyarrow.Schema:
    names = ["id", *columns, *(["tools"] if with_tools else []), "meta"]
    loose = pyarrow.json_()
    types = {name: loose if with_tools and TYPES[name] == MESSAGES else TYPES[name] for name in names}
    return pyarrow.schema(types)


def _table(rows: list[Row], schema: pyarrow.Schema) -> pyarrow.Table:
    known = set(schema.names)
    for row in rows:
        if not row.keys() <= known:
            raise ValueError(f"row {row.get('id')}: no column for {', '.join(sorted(row.keys() - known))}")
    return pyarrow.table([_column(rows, field) for field in schema], schema=schema)


def _column(rows: list[Row], field: pyarrow.Field) -> pyarrow.Array:
    values = [row.get(field.name) for row in rows]
    if field.type == MESSAGES and any(len(message) > 2 for messages in values for message in messages or ()):
        raise ValueError(f"{field.name}: tools are called, so with_tools must be set")
    if field.type != pyarrow.json_():
        return pyarrow.array(values, field.type)
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pyarrow.ExtensionArray.from_storage(field.type, pyarrow.array(texts, pyarrow.string()))


def read_parquet(path: Path) -> Iterator[Row]:
    """Rows as they were written; in files of other writers, the nulls of missing keys are removed."""
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            loose = {field.name for field in file.schema_arrow if field.type == pyarrow.json_()}
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield {name: _restored(item, name in loose) for name, item in value.items() if item is not None}
    except (pyarrow.ArrowException, ValueError) as error:  # a column of JSON may hold none
        raise BadData(f"{path}: no Parquet file after row {number}: {error}", "is the file complete?") from None


def _restored(value: Any, is_json: bool) -> Any:
    return json.loads(value) if is_json else _without_nulls(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
