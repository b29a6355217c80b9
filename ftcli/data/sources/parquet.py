"""Parquet and Arrow files, read in batches; numbers, lists and structs keep their types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from ftcli.data.records import Reason, Record, Reject
from ftcli.data.sources.raw_file import Mine, RawFile

BATCH_ROWS = 1024


def read_parquet(file: RawFile, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Rows of a Parquet file, counted from 1."""
    return _read(file, "Parquet", _parquet_batches(file), mine)


def read_arrow(file: RawFile, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Rows of an Arrow IPC file or stream, counted from 1."""
    return _read(file, "Arrow", _arrow_batches(file), mine)


def rows_of(
    batches: Iterator[pyarrow.RecordBatch | pyarrow.Table], name: str, start: int, mine: Mine
) -> Iterator[Record | Reject | None]:
    """Rows of ``batches``; ``start`` is the index of the first. Batches without a row of ``mine`` are not converted."""
    line = 0
    for batch in batches:
        wanted = [mine is None or mine(start + line + offset) for offset in range(batch.num_rows)]
        values = _values(batch) if any(wanted) else wanted
        for is_wanted, value in zip(wanted, values, strict=True):
            line += 1
            if not is_wanted:
                yield None
            elif isinstance(value, dict):
                yield Record(name, line, value)
            else:
                yield Reject(name, line, Reason.ENCODING, "a text that is no UTF-8", repr(value))


def _values(batch: pyarrow.RecordBatch | pyarrow.Table) -> list[dict[str, Any] | bytes]:
    """The rows as values; in place of one whose text is no UTF-8, which Arrow does not check, the bytes of that text."""
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [error.object]
        return [_values(batch.slice(index, 1))[0] for index in range(batch.num_rows)]


def _read(
    file: RawFile, kind: str, batches: Iterator[pyarrow.RecordBatch], mine: Mine
) -> Iterator[Record | Reject | None]:
    line = 1
    try:
        for item in rows_of(batches, file.name, 0, mine):
            yield item
            line += 1
    except (pyarrow.ArrowException, OSError) as error:  # Arrow raises OSError for a page that cannot be decompressed
        yield file.cut_off(line, why=f"no {kind} data: {error}")


def _parquet_batches(file: RawFile) -> Iterator[pyarrow.RecordBatch]:
    with pyarrow.parquet.ParquetFile(file.path) as source:
        yield from source.iter_batches(batch_size=BATCH_ROWS)


def _arrow_batches(file: RawFile) -> Iterator[pyarrow.RecordBatch]:
    with ExitStack() as stack:
        source = stack.enter_context(pyarrow.OSFile(str(file.path)))
        try:
            table = stack.enter_context(pyarrow.ipc.open_file(source))
            batches = (table.get_batch(index) for index in range(table.num_record_batches))
        except pyarrow.ArrowInvalid:  # not the format with a footer
            source.seek(0)
            batches = iter(stack.enter_context(pyarrow.ipc.open_stream(source)))
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)
