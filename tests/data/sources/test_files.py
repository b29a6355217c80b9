"""Raw rows of a path: mixed folders, tables, saved data sets, and the share of one process."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from ftcli.core.errors import BadData, UsageError
from ftcli.data.records import Record, Reject
from ftcli.data.sources.files import describe_files, open_records
from ftcli.data.sources.hf import is_saved, read_hub, read_saved

ROWS = [{"messages": [{"role": "user", "content": str(index)}], "n": index, "x": None} for index in range(2500)]


def mixed_folder(root: Path) -> Path:
    """One folder with every format; each file has two good rows, and most a bad one."""
    (root / "in").mkdir(parents=True)
    (root / "a.jsonl").write_text('{"n": 1}\nbroken\n\n{"n": 2}\n')
    (root / "b.json").write_text('[\n{"n": 1},\n{"n" 0},\n{"n": 2}\n]')
    (root / "c.csv").write_text("n,m\n1,1\nragged\n2,2\n")
    (root / "in" / "d.jsonl.gz").write_bytes(gzip.compress(b'{"n": 1}\n{"n": NaN}\n{"n": 2}\n')[:-8])
    (root / "in" / "e.tsv").write_bytes("n\tm\n1\té\n2\t\u00e9\n".encode("cp1252"))
    table = pyarrow.Table.from_pylist([{"n": 1}, {"n": 2}])
    pyarrow.parquet.write_table(table, root / "in" / "f.parquet")
    pyarrow.feather.write_feather(table, str(root / "g.arrow"), compression="uncompressed")
    (root / "h.json").write_text('{"data": [{"n": 1}, 0, {"n": 2}]}')
    return root


def test_a_folder_of_mixed_formats_is_read_file_by_file(tmp_path: Path) -> None:
    notes: list[str] = []
    items = list(open_records(mixed_folder(tmp_path / "raw"), notes))
    assert [(item.file, item.line) for item in items if isinstance(item, Record)] == [
        ("a.jsonl", 1),
        ("a.jsonl", 4),
        ("b.json", 1),
        ("b.json", 3),
        ("c.csv", 2),
        ("c.csv", 4),
        ("g.arrow", 1),
        ("g.arrow", 2),
        ("h.json", 1),
        ("h.json", 3),
        ("in/d.jsonl.gz", 1),
        ("in/d.jsonl.gz", 3),
        ("in/e.tsv", 2),
        ("in/e.tsv", 3),
        ("in/f.parquet", 1),
        ("in/f.parquet", 2),
    ]
    assert [int(item.value["n"]) for item in items if isinstance(item, Record)] == [1, 2] * 8
    assert [(item.file, item.line, str(item.reason)) for item in items if isinstance(item, Reject)] == [
        ("a.jsonl", 2, "parse_json"),
        ("b.json", 2, "parse_json"),
        ("c.csv", 3, "parse_csv"),
        ("h.json", 2, "not_object"),
        ("in/d.jsonl.gz", 2, "parse_json"),
        ("in/d.jsonl.gz", 4, "truncated_input"),
    ]
    assert notes == [
        "in/d.jsonl.gz: nothing was read from line 4 on: the compressed file is cut off",
        "in/e.tsv: no UTF-8, read as Windows-1252 (convert it if that looks wrong: iconv)",
    ]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_the_shares_of_several_processes_make_the_whole(tmp_path: Path, world: int) -> None:
    root = mixed_folder(tmp_path / "raw")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), root / "z.parquet")
    (root / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    whole = list(open_records(root, []))
    assert len(whole) == 22 + 2 * len(ROWS)
    notes: list[str] = []
    for rank in range(world):
        part = list(open_records(root, notes, lambda index, rank=rank: index // 5 % world == rank))
        assert part == [item if index // 5 % world == rank else None for index, item in enumerate(whole)]
    alone: list[str] = []
    assert len(list(open_records(root, alone))) == len(whole)
    assert set(notes) == set(alone)


def test_what_lies_where_does_not_change_the_records(tmp_path: Path) -> None:
    one = list(open_records(mixed_folder(tmp_path / "one"), []))
    assert list(open_records(mixed_folder(tmp_path / "elsewhere" / "two"), [])) == one
    assert [item.file for item in open_records(tmp_path / "one" / "in" / "*.tsv", []) if item] == ["e.tsv", "e.tsv"]


def test_files_are_described_in_words(tmp_path: Path) -> None:
    root = mixed_folder(tmp_path / "raw")
    (root / "i.jsonl").write_text('{"n": 1}\n', encoding="utf-16")
    (root / "j.csv").write_text("sep=|\nn|m\n")
    assert describe_files(root, []) == [
        ("a.jsonl", "JSON lines"),
        ("b.json", "JSON array"),
        ("c.csv", "CSV, commas"),
        ("g.arrow", "Arrow"),
        ("h.json", "JSON array in an object, under data"),
        ("i.jsonl", "JSON lines, UTF-16-LE"),
        ("in/d.jsonl.gz", "JSON lines, gzip"),
        ("in/e.tsv", "CSV, tabs"),
        ("in/f.parquet", "Parquet"),
        ("j.csv", "CSV"),
    ]
    (root / "in" / "t.md").write_text("x")
    assert describe_files(root / "in" / "*.md", []) == [("t.md", "text")]
    Dataset.from_list([{"q": 1}]).save_to_disk(tmp_path / "saved")
    assert describe_files(tmp_path / "saved", []) == [("saved", "datasets folder")]


def test_tables_give_nested_values_and_numbers_across_batches(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    pyarrow.feather.write_feather(table, str(tmp_path / "file.arrow"), compression="uncompressed")
    with pyarrow.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("x.parquet", "file.arrow", "stream.arrow"):
        assert list(open_records(tmp_path / name, [])) == [
            Record(name, line, value) for line, value in enumerate(ROWS, start=1)
        ]


def test_a_text_in_parquet_that_is_no_utf8_costs_its_row(tmp_path: Path) -> None:
    texts = pyarrow.array([b"one", b"caf\xe9", b"three"]).cast(pyarrow.string(), safe=False)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "x.parquet")
    assert list(open_records(tmp_path / "x.parquet", [])) == [
        Record("x.parquet", 1, {"text": "one"}),
        Reject("x.parquet", 2, "encoding", "a text that is no UTF-8", "b'caf\\xe9'"),
        Record("x.parquet", 3, {"text": "three"}),
    ]


def test_of_damaged_tables_the_rows_before_are_read(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {index} {'x' * 100}" for index in range(5000)]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=1000)
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    start = pyarrow.parquet.ParquetFile(tmp_path / "x.parquet").metadata.row_group(2).column(0).data_page_offset
    data[start : start + 50] = b"\xff" * 50
    (tmp_path / "x.parquet").write_bytes(data)
    with pyarrow.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    (tmp_path / "x.arrow").write_bytes((tmp_path / "x.arrow").read_bytes()[:300_000])
    for name in ("x.parquet", "x.arrow"):
        notes: list[str] = []
        *rows, cut = open_records(tmp_path / name, notes)
        assert len(rows) >= 1000
        assert [row.value["text"] for row in rows if isinstance(row, Record)] == table["text"].to_pylist()[: len(rows)]
        assert isinstance(cut, Reject)
        assert (cut.line, cut.reason) == (len(rows) + 1, "truncated_input")
        assert len(notes) == 1


def test_a_saved_datasets_folder_is_read_with_all_its_splits(tmp_path: Path) -> None:
    one, two = (Dataset.from_list([{"q": name, "m": [{"role": "user"}]}]) for name in "ab")
    DatasetDict({"train": one, "test": two}).save_to_disk(tmp_path / "both")
    one.save_to_disk(tmp_path / "one")
    assert list(open_records(tmp_path / "both", [])) == [
        Record("train", 1, {"q": "a", "m": [{"role": "user"}]}),
        Record("test", 1, {"q": "b", "m": [{"role": "user"}]}),
    ]
    assert [item.file for item in open_records(tmp_path / "one", []) if item] == ["data"]
    assert [item and item.file for item in open_records(tmp_path / "both", [], lambda index: index == 1)] == [
        None,
        "test",
    ]


def test_a_saved_data_set_among_other_files_is_read_by_its_files(tmp_path: Path) -> None:
    Dataset.from_list([{"q": 1}]).save_to_disk(tmp_path / "saved")
    (tmp_path / "x.jsonl").write_text('{"q": 2}\n')
    assert [(item.file, item.value) for item in open_records(tmp_path, []) if isinstance(item, Record)] == [
        ("saved/data-00000-of-00001.arrow", {"q": 1}),
        ("x.jsonl", {"q": 2}),
    ]


def test_a_list_of_data_sets_is_no_saved_one(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "x.jsonl").write_text('{"q": 1}\n')
    assert not is_saved(tmp_path)
    notes: list[str] = []
    assert [item.file for item in open_records(tmp_path, notes) if item] == ["x.jsonl"]
    assert notes == ["not read, unknown type: dataset_info.json"]


def test_a_damaged_datasets_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(BadData, match="datasets cannot open the folder"):
        list(open_records(tmp_path, []))
    with pytest.raises(BadData, match="datasets cannot open the folder"):
        list(read_saved(tmp_path, "d"))


def test_a_path_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        open_records(tmp_path / "x.jsonl", [])


def test_a_hub_data_set_out_of_reach_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="hf:org/no-such-data") as caught:
        list(read_hub("org/no-such-data", "main"))
    assert "network" in caught.value.hint


def test_a_data_set_with_several_configurations_is_read_by_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # datasets takes a folder of that name for the hub's
    for config in ("main", "other"):
        folder = tmp_path / "org" / "data" / config
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text(json.dumps({"question": config, "answer": "1"}) + "\n")
    listed = "".join(f"- config_name: {name}\n  data_files: {name}/train.jsonl\n" for name in ("main", "other"))
    (tmp_path / "org" / "data" / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert [row.value["question"] for row in read_hub("org/data/other", None) if isinstance(row, Record)] == ["other"]
    with pytest.raises(UsageError, match=r"hf:org/data: .*main.*other") as caught:
        list(read_hub("org/data", None))
    assert caught.value.hint == "write hf:org/data/CONFIG"
