"""Data folders in Parquet, and that `datasets` reads both kinds of folder as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftcli.core.errors import BadData
from ftcli.data.rows import SPLITS, FileFormat, Row, RowType, read_split, row_type, uses_tools, write_rows
from tests.data.test_rows import CALLING, EVERY, MESSAGES, PREFERENCE, PROMPT, RANKING, TEXT, UNPAIRED

WITH_META = {"file": "a.jsonl", "line": 3, "scores": {"x": [1, None]}, "note": None}


def written(folder: Path, rows: list[Row], file_format: FileFormat = "parquet", *, empty: bool = False) -> Path:
    """A data folder whose train split has ``rows``, the others the first one, or nothing."""
    kind = row_type(rows[0])
    assert kind is not None
    tools = any(uses_tools(row) for row in rows)
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        part = rows if split == "train" else rows[: 0 if empty else 1]
        count = write_rows(folder / f"{split}.{file_format}", part, file_format, kind, with_tools=tools)
        assert count == len(part)
    return folder


@pytest.mark.parametrize("row", EVERY)
def test_rows_come_back_from_parquet_as_they_are(tmp_path: Path, row: Row) -> None:
    rows = [row, {**row, "id": "other", "meta": WITH_META}]
    folder = written(tmp_path, rows)
    assert read_split(folder, "train", *RowType) == rows
    assert read_split(folder, "train", *RowType, limit=1) == rows[:1]
    assert read_split(written(tmp_path, rows, empty=True), "test", *RowType) == []


def test_rows_with_and_without_tools_share_a_file(tmp_path: Path) -> None:
    rows = [MESSAGES, CALLING, {**MESSAGES, "tools": CALLING["tools"]}]
    assert read_split(written(tmp_path, rows), "train", RowType.MESSAGES) == rows
    prompts = [PROMPT, {**PROMPT, "prompt": CALLING["messages"][:-1]}]
    assert read_split(written(tmp_path, prompts), "train", RowType.PROMPT) == prompts


def test_more_rows_than_a_row_group_has(tmp_path: Path) -> None:
    rows = [{**TEXT, "id": str(number)} for number in range(10_000)]
    folder = written(tmp_path, rows)
    assert pyarrow.parquet.ParquetFile(folder / "train.parquet").metadata.num_row_groups == 3
    assert read_split(folder, "train", RowType.TEXT) == rows


def test_the_columns_follow_from_the_row_type_alone(tmp_path: Path) -> None:
    folder = written(tmp_path, [UNPAIRED], empty=True)
    schemas = {str(pyarrow.parquet.read_schema(folder / f"{split}.parquet")) for split in SPLITS}
    assert len(schemas) == 1


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    once, again = (written(tmp_path / name, [CALLING, MESSAGES]) for name in ("a", "b"))
    assert (once / "train.parquet").read_bytes() == (again / "train.parquet").read_bytes()


def test_what_has_no_column_is_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    with pytest.raises(ValueError, match="row 1: no column for margin"):
        write_rows(path, [{**MESSAGES, "margin": 1}], "parquet", RowType.MESSAGES)
    with pytest.raises(ValueError, match="messages: tools are called, so with_tools must be set"):
        write_rows(path, [{**MESSAGES, "messages": CALLING["messages"]}], "parquet", RowType.MESSAGES)


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
@pytest.mark.parametrize("row", [MESSAGES, PROMPT, PREFERENCE, TEXT, RANKING, UNPAIRED, CALLING])
def test_datasets_opens_a_data_folder(tmp_path: Path, row: dict[str, Any], file_format: FileFormat) -> None:
    """With `load_dataset` on the folder, as its users do; columns, values and splits are those that were written."""
    meta = {"file": "a.jsonl", "line": 3}
    rows = [{**row, "meta": meta}, {**row, "id": "other", "meta": meta}]
    folder = written(tmp_path / "data", rows, file_format)
    found = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in found.items()} == {"train": 2, "validation": 1, "test": 1}
    assert [_without_nulls(item) for item in found["train"]] == rows
    if row is CALLING and file_format == "parquet":
        assert list(found["train"]) == rows, "without a null for keys that only other messages have"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def test_a_folder_that_datasets_wrote_is_read_without_its_nulls(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    rows = [
        {**CALLING, "tools": tools, "meta": {"file": "f", "line": 1, "topic": "x"}},
        {**MESSAGES, "meta": {"file": "f", "line": 2}},
    ]
    table = Dataset.from_list(rows)
    assert table[1]["tools"] is None
    assert table[1]["meta"]["topic"] is None
    assert table[1]["messages"][0]["tool_calls"] is None
    table.to_parquet(str(tmp_path / "train.parquet"))
    assert read_split(tmp_path, "train", RowType.MESSAGES) == rows


def test_a_wrong_row_is_named_with_file_and_number(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": ["1", "2"], "text": ["t", None]}), tmp_path / "train.parquet")
    with pytest.raises(BadData, match=r"train.parquet:2: no known row type, text needed"):
        read_split(tmp_path, "train", RowType.TEXT)


def test_a_broken_file_is_bad_data(tmp_path: Path) -> None:
    path = written(tmp_path, [TEXT]) / "train.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match=r"train.parquet: no Parquet file after row 0: "):
        read_split(tmp_path, "train", RowType.TEXT)
    no_json = pyarrow.ExtensionArray.from_storage(pyarrow.json_(), pyarrow.array(["{"]))
    pyarrow.parquet.write_table(pyarrow.table({"id": ["1"], "text": ["t"], "meta": no_json}), path)
    with pytest.raises(BadData, match=r"train.parquet: no Parquet file after row 1: Expecting property name"):
        read_split(tmp_path, "train", RowType.TEXT)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
metas = st.dictionaries(st.text(), json_values, max_size=3)
candidates = st.lists(st.fixed_dictionaries({"content": st.text(), "rank": st.integers(1, 9)}), min_size=2, max_size=3)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.text(), candidates, metas), max_size=3))
def test_parquet_and_jsonl_hold_the_same_rows(tmp_path: Path, drawn: list[tuple[str, list[Row], Row]]) -> None:
    rows = [
        {"id": "i", "prompt": [{"role": "user", "content": text}], "candidates": items, "meta": meta}
        for text, items, meta in drawn
    ]
    for file_format in ("jsonl", "parquet"):
        folder = tmp_path / file_format
        folder.mkdir(exist_ok=True)
        write_rows(folder / f"train.{file_format}", rows, file_format, RowType.RANKING)
        assert read_split(folder, "train", RowType.RANKING) == rows
