"""Parquet files, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from ftcli.core.errors import BadData
from ftcli.data.records import Record

BATCH_ROWS = 1000


def read_parquet(path: Path, name: str) -> Iterator[Record]:
    """Rows of a Parquet file, counted from 1."""
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield Record(name, number, value)
    except pyarrow.ArrowException as error:
        raise BadData(f"{name}: no Parquet file after row {number}: {error}", "is the file complete?") from None
