"""Which files a path stands for; Parquet and datasets folders."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from ftcli.core.errors import BadData, UsageError
from ftcli.data.records import Record
from ftcli.data.sources.files import find_files, read_files
from ftcli.data.sources.hf import is_saved, read_hub, read_saved
from ftcli.data.sources.jsonl import read_jsonl
from ftcli.data.sources.parquet import read_parquet

READERS = {".jsonl": read_jsonl, ".parquet": read_parquet}


def test_a_folder_is_read_file_by_file_in_order_and_names_are_relative(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.JSONL", ".hidden/h.jsonl", "a/.h.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"n": 1}\n')
    (tmp_path / "readme.md").write_text("x")
    notes: list[str] = []
    assert [item.file for item in read_files(tmp_path, READERS, notes)] == ["a/z.JSONL", "b.jsonl"]
    assert notes == ["not read, unknown type: readme.md"]


def test_of_a_prepared_folder_only_the_splits_are_read(tmp_path: Path) -> None:
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "rejects.jsonl", "stats.json"):
        (tmp_path / name).write_text("{}\n")
    assert [path.name for path in find_files(tmp_path, READERS, [])] == [
        "train.jsonl",
        "validation.jsonl",
        "test.jsonl",
    ]


def test_a_missing_path_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UsageError, match="no such file or folder") as caught:
        find_files(tmp_path / "tran.jsonl", READERS, [])
    assert caught.value.hint == "did you mean train.jsonl?"
    with pytest.raises(UsageError) as caught:
        find_files(tmp_path / "no" / "x.jsonl", READERS, [])
    assert "no folder" in caught.value.hint


def test_unknown_types_list_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "x.docx").write_text("")
    with pytest.raises(BadData, match=r"unknown file type \.docx") as caught:
        find_files(tmp_path / "x.docx", READERS, [])
    assert caught.value.hint == "known types: .jsonl .parquet"
    with pytest.raises(BadData, match=r"no readable file in it; there is x\.docx"):
        find_files(tmp_path, READERS, [])


def test_parquet_gives_nested_values_across_batches(tmp_path: Path) -> None:
    values = [{"messages": [{"role": "user", "content": str(index)}]} for index in range(2500)]
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), path, row_group_size=700)
    items = list(read_parquet(path, "x.parquet"))
    assert [item.line for item in items] == list(range(1, 2501))
    assert [item.value for item in items] == values


def test_a_broken_parquet_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(BadData, match=r"x\.parquet: no Parquet file"):
        list(read_parquet(path, "x.parquet"))


def test_a_datasets_folder_is_read_with_all_its_splits(tmp_path: Path) -> None:
    one, two = (Dataset.from_list([{"q": name, "m": [{"role": "user"}]}]) for name in "ab")
    DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "both")
    one.save_to_disk(tmp_path / "one")
    assert is_saved(tmp_path / "both")
    assert is_saved(tmp_path / "one")
    assert not is_saved(tmp_path)
    assert list(read_saved(tmp_path / "both", "both")) == [
        Record("train", 1, {"q": "a", "m": [{"role": "user"}]}),
        Record("test", 1, {"q": "b", "m": [{"role": "user"}]}),
    ]
    assert [item.file for item in read_saved(tmp_path / "one", "one")] == ["data"]


def test_a_damaged_datasets_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(BadData, match="datasets cannot open the folder"):
        list(read_saved(tmp_path, "d"))


def test_a_hub_data_set_out_of_reach_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="hf:org/no-such-data") as caught:
        list(read_hub("org/no-such-data", "main"))
    assert "network" in caught.value.hint
