"""Which files a path stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import BadData, UsageError
from ftcli.data.sources.paths import file_type, find_files, is_pattern, pattern_root


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}\n")
    return root


def names_of(path: Path, notes: list[str] | None = None) -> list[str]:
    return [name for _, name in find_files(path, [] if notes is None else notes)]


def test_a_folder_stands_for_its_files_of_every_type_in_order(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", "a/z.JSONL", "a/c.csv.gz", ".hidden/h.jsonl", "a/.h.jsonl", "a-b.parquet", "run.sh", "x")
    notes: list[str] = []
    assert names_of(tmp_path, notes) == ["a-b.parquet", "a/c.csv.gz", "a/z.JSONL", "b.jsonl"]
    assert notes == ["not read, unknown type: run.sh, x"]


def test_linked_folders_are_followed_as_in_a_hub_cache(tmp_path: Path) -> None:
    write(tmp_path / "blobs", "x.jsonl")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "data").symlink_to(tmp_path / "blobs")
    assert names_of(tmp_path / "snapshot") == ["data/x.jsonl"]


def test_texts_are_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    notes: list[str] = []
    assert names_of(write(tmp_path, "a.txt", "b/c.md"), notes) == ["a.txt", "b/c.md"]
    assert notes == []
    assert names_of(write(tmp_path, "x.jsonl"), notes) == ["x.jsonl"]
    assert notes == ["not read, texts beside files of rows: a.txt, b/c.md"]


def test_what_tools_leave_beside_rows_is_no_data(tmp_path: Path) -> None:
    write(tmp_path, "x.arrow", "cache-1f.arrow", "state.json", "dataset_info.json")
    notes: list[str] = []
    assert names_of(tmp_path, notes) == ["x.arrow"]
    assert notes == ["not read, unknown type: cache-1f.arrow, dataset_info.json, state.json"]
    assert names_of(tmp_path / "state.json") == ["state.json"], "unless it is asked for by name"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_of_what_prep_made_only_the_splits_are_read(tmp_path: Path, suffix: str) -> None:
    splits = [f"{split}.{suffix}" for split in ("train", "validation", "test")]
    write(tmp_path / "old", *splits, "rejects.jsonl", "stats.json")
    assert names_of(tmp_path / "old") == splits
    write(
        tmp_path / "new",
        *(f"data/{name}" for name in splits),
        "report/rejects.jsonl",
        "report/stats.json",
        "stage.json",
    )
    assert names_of(tmp_path / "new") == [f"data/{name}" for name in splits]
    assert sorted(names_of(tmp_path / "new" / "data")) == sorted(splits)
    (tmp_path / "old" / splits[0]).unlink()
    assert "rejects.jsonl" in names_of(tmp_path / "old"), "a split is missing, so this is some other folder"


def test_a_pattern_stands_for_the_files_that_match(tmp_path: Path) -> None:
    write(tmp_path, "raw/a.jsonl", "raw/b.jsonl", "raw/c.csv", "raw/in/d.jsonl", "raw/.e.jsonl", "raw/f.exe")
    notes: list[str] = []
    assert names_of(tmp_path / "raw/*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names_of(tmp_path / "raw/[ac].*") == ["a.jsonl", "c.csv"]
    assert names_of(tmp_path / "*/?.csv") == ["raw/c.csv"]
    assert names_of(tmp_path / "raw/**/*.jsonl") == ["a.jsonl", "b.jsonl", "in/d.jsonl"]
    assert names_of(tmp_path / "raw/**", notes) == ["a.jsonl", "b.jsonl", "c.csv", "in/d.jsonl"]
    assert notes == ["not read, unknown type: f.exe"]


def test_names_below_a_pattern_do_not_depend_on_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "raw/a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert find_files(Path("raw/*.jsonl"), []) == [(Path("raw/a.jsonl"), "a.jsonl")]
    monkeypatch.chdir(tmp_path / "raw")
    assert find_files(Path("*.jsonl"), []) == [(Path("a.jsonl"), "a.jsonl")]


def test_a_name_with_brackets_is_a_name_if_it_is_there(tmp_path: Path) -> None:
    write(tmp_path, "x[1].jsonl")
    assert not is_pattern(tmp_path / "x[1].jsonl")
    assert names_of(tmp_path / "x[1].jsonl") == ["x[1].jsonl"]
    assert is_pattern(tmp_path / "x[2].jsonl")
    assert pattern_root(Path("/a/b*/c/*.csv")) == Path("/a")


def test_a_missing_path_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl")
    with pytest.raises(UsageError, match="no such file or folder") as caught:
        find_files(tmp_path / "tran.jsonl", [])
    assert caught.value.hint == "did you mean train.jsonl?"
    with pytest.raises(UsageError) as caught:
        find_files(tmp_path / "no" / "x.jsonl", [])
    assert "no folder" in caught.value.hint


def test_a_pattern_that_nothing_matches_says_so(tmp_path: Path) -> None:
    write(tmp_path, "raw/in/a.jsonl")
    with pytest.raises(UsageError, match="no file matches"):
        find_files(tmp_path / "raw" / "*.jsonl", [])
    with pytest.raises(UsageError, match="only folders match") as caught:
        find_files(tmp_path / "raw" / "*", [])
    assert "**" in caught.value.hint
    with pytest.raises(UsageError, match="there is no folder") as caught:
        find_files(tmp_path / "rwa" / "*", [])
    assert caught.value.hint == "did you mean raw?"


def test_unknown_types_list_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, "x.docx", "y.parquet.gz")
    with pytest.raises(BadData, match=r"x\.docx: unknown file type \.docx") as caught:
        find_files(tmp_path / "x.docx", [])
    assert caught.value.hint.startswith("known types: .jsonl .ndjson .json .csv .tsv .txt .md .parquet .arrow;")
    with pytest.raises(BadData, match=r"unknown file type \.parquet\.gz"):
        find_files(tmp_path / "y.parquet.gz", [])
    with pytest.raises(BadData, match=r"no readable file in it; there is x\.docx, y\.parquet\.gz"):
        find_files(tmp_path, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match="there is nothing"):
        find_files(tmp_path / "empty", [])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.b.JSONL", ".jsonl"),
        ("a.json.gz", ".json"),
        ("a.csv.ZST", ".csv"),
        ("a.gz", ""),
        ("a.tar.gz", ""),
        ("jsonl", ""),
    ],
)
def test_the_type_is_the_suffix_below_the_compression(name: str, kind: str) -> None:
    assert file_type(Path(name)) == kind
