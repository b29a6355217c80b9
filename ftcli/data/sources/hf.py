"""Data sets of the Hugging Face hub, and folders written by `datasets.Dataset.save_to_disk`.

All splits are read, one after the other: prep deduplicates across them and splits anew. Values are taken from Arrow as they
are stored; images and audio are not decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftcli.core.errors import BadData, UsageError
from ftcli.data.records import Record, Reject
from ftcli.data.sources.parquet import BATCH_ROWS, rows_of
from ftcli.data.sources.raw_file import Mine

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def read_hub(name: str, revision: str | None, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Rows of the hub's data set ``name`` (`split_config`) at ``revision``; a record's file is its split."""
    from datasets import load_dataset  # noqa: PLC0415  (takes a second to import, which most sources can do without)

    repository, config = split_config(name)
    try:
        data = load_dataset(repository, config, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # not found, no network, no such revision or configuration
        lines = str(error).strip().splitlines() or [type(error).__name__]
        hint = "check name, revision and network; or download it and give the folder"
        if lines[0].startswith("Config name is missing"):
            lines[0], hint = " ".join(lines[:2]), f"write hf:{name}/CONFIG"
        raise UsageError(f"hf:{name}: {lines[0]}", hint) from None
    yield from _rows(data, mine)


def split_config(name: str) -> tuple[str, str | None]:
    """``org/name`` and, of a data set with several configurations, the one in ``org/name/config``."""
    parts = name.split("/", 2)
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None


def is_saved(folder: Path) -> bool:
    """Whether ``folder`` was written by `save_to_disk`."""
    names = ("dataset_info.json", "state.json")
    return (folder / "dataset_dict.json").is_file() or all((folder / name).is_file() for name in names)


def read_saved(folder: Path, name: str, mine: Mine = None) -> Iterator[Record | Reject | None]:
    """Rows of a folder written by `save_to_disk`; a record's file is its split, or ``data`` if there is one only."""
    from datasets import load_from_disk  # noqa: PLC0415

    try:
        data = load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise BadData(f"{name}: datasets cannot open the folder: {error}", "save it again with save_to_disk") from None
    yield from _rows(data, mine)


def _rows(data: Dataset | DatasetDict, mine: Mine) -> Iterator[Record | Reject | None]:
    splits = data if isinstance(data, dict) else {"data": data}
    start = 0
    for split, rows in splits.items():
        yield from rows_of(rows.with_format("arrow").iter(BATCH_ROWS), str(split), start, mine)
        start += len(rows)
