"""Data sets of the Hugging Face hub, and folders written by `datasets.Dataset.save_to_disk`.

All splits are read, one after the other: prep deduplicates across them and splits anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from ftcli.core.errors import BadData, UsageError
from ftcli.data.records import Record


def read_hub(name: str, revision: str | None) -> Iterator[Record]:
    """Rows of the hub's data set ``name`` at ``revision``; a record's file is its split."""
    try:
        data = load_dataset(name, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # not found, no network, no such revision or configuration
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"hf:{name}: {first}", "check name, revision and network; or download it and give the folder"
        ) from None
    yield from _rows(data)


def is_saved(folder: Path) -> bool:
    """Whether ``folder`` was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def read_saved(folder: Path, name: str) -> Iterator[Record]:
    """Rows of a folder written by `save_to_disk`."""
    try:
        data = load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise BadData(f"{name}: datasets cannot open the folder: {error}", "save it again with save_to_disk") from None
    yield from _rows(data)


def _rows(data: Dataset | DatasetDict) -> Iterator[Record]:
    splits = data if isinstance(data, DatasetDict) else {"data": data}
    for split, rows in splits.items():
        for number, value in enumerate(rows, start=1):
            yield Record(str(split), number, dict(value))
