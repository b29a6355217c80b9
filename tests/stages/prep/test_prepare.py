"""The prep stage end to end, on files made here."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.data.rows import SPLITS, RowType, read_split
from ftcli.stages.prep.stage import PREP
from tests.conftest import artifact, run_stage

Value = dict[str, Any]


def qa(index: int) -> Value:
    return {"question": f"What is item {index}?", "answer": f"It is the thing number {index}."}


def write_lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in values))
    return path


def prep(folder: Path, source: Path, model: Path | None = None, **options: Any) -> Context[Any]:
    inputs = {"source": artifact(Kind.SOURCE, source)}
    if model:
        inputs["model"] = artifact(Kind.MODEL, model)
    folder.mkdir(exist_ok=True)
    return run_stage(PREP, folder, inputs, **options)


def stats_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out/report/stats.json").read_text())


def rejects_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out/report/rejects.jsonl").read_text().splitlines()]


def rows_of(folder: Path, wanted: RowType = RowType.MESSAGES) -> list[dict[str, Any]]:
    return [row for split in SPLITS for row in read_split(folder / "out/data", split, wanted)]


def test_every_row_is_in_one_split_or_among_the_rejects(tmp_path: Path) -> None:
    values = [*(qa(index) for index in range(60)), qa(3), '{"question"', {"question": "empty?", "answer": " "}]
    context = prep(tmp_path, write_lines(tmp_path / "x.jsonl", values))
    stats = stats_of(tmp_path)
    assert {split: (part["rows"], part["groups"]) for split, part in stats["splits"].items()} == {
        "train": (54, 54),
        "validation": (3, 3),
        "test": (3, 3),
    }
    assert stats["rejected"] == {"empty_answer": 1, "exact_duplicate": 1, "parse_json": 1}
    assert (stats["rows_in"], stats["rows_out"], stats["row_type"]) == (63, 60, "messages")
    assert stats["sources"][0]["format"] == "question_answer"
    assert {step["step"]: step["rows_in"] for step in stats["ledger"]} | {"read": 63, "empty": 62} == {
        step["step"]: step["rows_in"] for step in stats["ledger"]
    }
    assert stats["ledger"][-1]["rows_out"] == 60
    assert sorted((item["line"], item["reason"]) for item in rejects_of(tmp_path)) == [
        (61, "exact_duplicate"),
        (62, "parse_json"),
        (63, "empty_answer"),
    ]
    (line,) = (tmp_path / "scratch/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["data/train_rows"] == context.events.summary["data/train_rows"] == 54


def test_all_file_types_give_the_same_rows(tmp_path: Path) -> None:
    values = [qa(index) for index in range(8)]
    write_lines(tmp_path / "a.jsonl", values)
    (tmp_path / "a.json").write_text(json.dumps(values))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(values)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), tmp_path / "a.parquet")
    Dataset.from_list(values).save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    write_lines(tmp_path / "folder/1.jsonl", values[:5])
    (tmp_path / "folder/2.json").write_text(json.dumps(values[5:]))
    results = []
    for number, name in enumerate(["a.jsonl", "a.json", "a.csv", "a.parquet", "saved", "folder"]):
        prep(tmp_path / f"run{number}", tmp_path / name)
        results.append([(row["id"], row["messages"]) for row in rows_of(tmp_path / f"run{number}")])
    assert len(results[0]) == 8
    assert all(result == results[0] for result in results)


def test_numbers_in_csv_stay_text(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_text("question,answer\nwho?,007\n")
    prep(tmp_path, source)
    assert rows_of(tmp_path)[0]["messages"][1]["content"] == "007"


def test_pydoc_is_a_source_without_a_path(tmp_path: Path) -> None:
    inputs = {"source": Artifact(Kind.SOURCE, "pydoc:rouge_score", Path("-"), "d")}
    run_stage(PREP, tmp_path, inputs)
    stats = stats_of(tmp_path)
    assert stats["sources"][0]["ref"] == "pydoc:rouge_score"
    assert stats["rows_out"] > 5


def test_the_hub_is_asked_for_the_pinned_revision_and_out_of_reach_it_says_so(tmp_path: Path) -> None:
    inputs = {"source": Artifact(Kind.SOURCE, "hf:org/no-such-data@0123", Path("-"), "d")}
    with pytest.raises(UsageError, match="hf:org/no-such-data"):
        run_stage(PREP, tmp_path, inputs)


def test_datasets_opens_the_output_and_does_not_see_the_rejects(tmp_path: Path) -> None:
    prep(tmp_path, write_lines(tmp_path / "x.jsonl", [*(qa(index) for index in range(40)), "no json"]))
    data = load_dataset(str(tmp_path / "out/data"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 36, "validation": 2, "test": 2}
    assert set(data["train"].column_names) == {"id", "messages", "meta"}


def test_preparing_the_output_again_changes_nothing(tmp_path: Path) -> None:
    prep(tmp_path / "one", write_lines(tmp_path / "x.jsonl", [*(qa(index) for index in range(50)), qa(1), "no json"]))
    prep(tmp_path / "two", tmp_path / "one/out/data")
    one, two = ([(row["id"], row["messages"]) for row in rows_of(tmp_path / name)] for name in ("one", "two"))
    assert sorted(one) == sorted(two)
    assert stats_of(tmp_path / "one")["splits"] == stats_of(tmp_path / "two")["splits"]
    assert stats_of(tmp_path / "two")["rejected"] == {}


def test_the_same_input_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    values = [qa(index % 30) for index in range(40)]
    outputs = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        prep(tmp_path / name, write_lines(tmp_path / name / "x.jsonl", values), limit=20)
        files = [path for path in (tmp_path / name / "out").rglob("*") if path.is_file()]
        outputs.append({path.relative_to(tmp_path / name / "out").as_posix(): path.read_bytes() for path in files})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {
        *(f"data/{split}.jsonl" for split in SPLITS),
        *(f"report/{name}.jsonl" for name in ("rejects", "duplicates", "conflicts", "flags")),
        *(f"report/{name}" for name in ("stats.json", "report.html", "report.md", "summary.txt")),
    }


def test_limit_draws_the_same_rows_whatever_their_order(tmp_path: Path) -> None:
    values = [qa(index) for index in range(60)]
    prep(tmp_path / "a", write_lines(tmp_path / "x.jsonl", values), limit=20)
    prep(tmp_path / "b", write_lines(tmp_path / "x.jsonl", random.Random(1).sample(values, 60)), limit=20)
    prep(tmp_path / "c", write_lines(tmp_path / "x.jsonl", values), limit=20, seed=7)
    a, b, c = ({row["id"] for row in rows_of(tmp_path / name)} for name in "abc")
    assert len(a) == 20
    assert a == b
    assert a != c
    assert stats_of(tmp_path / "a")["rejected"] == {"over_limit": 40}


def test_tokens_are_counted_and_long_rows_refused_with_a_model(tmp_path: Path, tiny_model: Path) -> None:
    values = [*(qa(index) for index in range(10)), {"question": "long?", "answer": "the cat sat on a mat " * 60}]
    source = write_lines(tmp_path / "x.jsonl", values)
    prep(tmp_path / "all", source, tiny_model)
    tokens = stats_of(tmp_path / "all")["lengths"]
    assert tokens["unit"] == "tokens"
    assert tokens["total"]["max"] > 200 > tokens["total"]["p50"] > tokens["answer"]["p50"] > 0
    prep(tmp_path / "short", source, tiny_model, max_length=200)
    stats = stats_of(tmp_path / "short")
    assert stats["rejected"] == {"too_long": 1}
    assert stats["lengths"]["total"]["max"] <= 200
    assert stats["lengths"]["total"]["sum"] < tokens["total"]["sum"]


def test_long_rows_can_be_cut_or_only_counted(tmp_path: Path, tiny_model: Path) -> None:
    values = [*(qa(index) for index in range(10)), {"question": "long?", "answer": "the cat sat on a mat " * 60}]
    source = write_lines(tmp_path / "x.jsonl", values)
    prep(tmp_path / "kept", source, tiny_model, max_length=100, too_long="keep")
    prep(tmp_path / "cut", source, tiny_model, max_length=100, too_long="truncate")
    kept, cut = (stats_of(tmp_path / name)["lengths"] for name in ("kept", "cut"))
    assert kept["too_long"] == {"policy": "keep", "rows": 1, "trained_tokens_lost": 0}
    assert cut["too_long"]["rows"] == 1
    assert cut["total"]["max"] <= 100 < kept["total"]["max"]
    assert cut["too_long"]["trained_tokens_lost"] == kept["answer"]["sum"] - cut["answer"]["sum"] > 0
    (row,) = [row for row in rows_of(tmp_path / "cut") if row["messages"][0]["content"] == "long?"]
    assert ("the cat sat on a mat " * 60).startswith(row["messages"][1]["content"])


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    values = [*(qa(index) for index in range(10)), {"question": "the cat sat on a mat " * 60, "answer": "yes"}]
    prep(tmp_path, write_lines(tmp_path / "x.jsonl", values), tiny_model, max_length=100, too_long="truncate")
    assert stats_of(tmp_path)["rejected"] == {"no_trainable_tokens": 1}


def test_max_length_without_a_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_length needs a tokenizer") as caught:
        prep(tmp_path, write_lines(tmp_path / "x.jsonl", [qa(1)]), max_length=9)
    assert "--model" in caught.value.hint


def test_a_folder_that_is_no_model_is_a_usage_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no tokenizer can be loaded"):
        prep(tmp_path, write_lines(tmp_path / "x.jsonl", [qa(1)]), empty)


def test_an_adapter_without_tokenizer_counts_with_its_base(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    base = artifact(Kind.MODEL, tiny_model)
    source = artifact(Kind.SOURCE, write_lines(tmp_path / "x.jsonl", [qa(1)]))
    model = artifact(Kind.MODEL, tmp_path / "adapter", base=base)
    run_stage(PREP, tmp_path, {"source": source, "model": model})
    assert stats_of(tmp_path)["lengths"]["unit"] == "tokens"


def test_map_and_unread_columns_are_told(tmp_path: Path) -> None:
    values = [{"tool": "ls", "description": f"list {index}", "command": f"ls {index}"} for index in range(5)]
    prep(tmp_path, write_lines(tmp_path / "x.jsonl", values), map={"prompt": "description", "completion": "command"})
    stats = stats_of(tmp_path)
    assert stats["sources"][0]["format"] == "prompt_completion"
    assert stats["notes"][0] == "format prompt_completion does not read the columns tool"
    assert {row["messages"][0]["content"] for row in rows_of(tmp_path)} == {f"list {index}" for index in range(5)}


def test_cleanings_can_be_switched_off(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "x.jsonl", [{"question": "q  ", "answer": "caf\u00c3\u00a9\u200b <b>x</b>"}])
    prep(tmp_path / "on", source)
    assert [item["content"] for item in rows_of(tmp_path / "on")[0]["messages"]] == ["q", "caf\u00e9 x"]
    assert stats_of(tmp_path / "on")["changed"] == {"unicode": 1, "control": 1, "html": 1, "whitespace": 1}
    off = dict.fromkeys(["clean_unicode", "clean_control", "clean_html", "clean_whitespace"], False)
    prep(tmp_path / "off", source, **off)
    assert rows_of(tmp_path / "off")[0]["messages"][1]["content"] == "caf\u00c3\u00a9\u200b <b>x</b>"


def test_pairs_stay_pairs(tmp_path: Path) -> None:
    values = [{"prompt": f"q{index}", "chosen": "good", "rejected": "bad"} for index in range(6)]
    values.append({"prompt": "q", "chosen": "same", "rejected": "same "})
    prep(tmp_path, write_lines(tmp_path / "x.jsonl", values))
    assert len(rows_of(tmp_path, RowType.PREFERENCE)) == 6
    assert stats_of(tmp_path)["rejected"] == {"same_answers": 1}


def test_too_many_malformed_rows_fail_and_name_the_first(tmp_path: Path) -> None:
    values = [*(qa(index) for index in range(18)), {"question": "q", "answer": {"a": 7}}, "{"]
    source = write_lines(tmp_path / "x.jsonl", values)
    with pytest.raises(BadData) as caught:
        prep(tmp_path / "strict", source, format="question_answer")
    assert "2 of 20 rows are malformed (parse_json 1, type_error 1)" in caught.value.message
    assert "x.jsonl:19: type_error: answer is an object, text needed" in caught.value.message
    assert "--max-reject-rate" in caught.value.hint
    prep(tmp_path / "lax", source, max_reject_rate=0.1, format="question_answer")
    assert stats_of(tmp_path / "lax")["rows_out"] == 18


def test_rows_of_another_format_are_no_guess(tmp_path: Path) -> None:
    values = [*(qa(index) for index in range(5)), {"prompt": "q", "chosen": "a", "rejected": "b"}]
    source = write_lines(tmp_path / "x.jsonl", values)
    with pytest.raises(BadData, match=r"no format fits 95%.*question_answer 83\.3%"):
        prep(tmp_path / "auto", source)
    with pytest.raises(BadData, match="no question, answer; the row has prompt, chosen, rejected"):
        prep(tmp_path / "named", source, format="question_answer")


def test_a_file_in_another_encoding_is_read_as_a_whole_and_told(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_bytes(b"question,answer\n" + b"".join(b"q%d,a\n" % index for index in range(30)) + b"caf\xe9,a\n")
    prep(tmp_path, source)
    assert "caf\u00e9" in {row["messages"][0]["content"] for row in rows_of(tmp_path)}
    assert any("Windows-1252" in note for note in stats_of(tmp_path)["notes"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows in it"),
        ("\n\n", "no rows in it"),
        ("nonsense\n", "1 of 1 rows are malformed"),
        ('{"question": "q", "answer": ""}\n', r"none of 1 rows is left \(empty_answer 1\)"),
        ('{"a": 1}\n', "no known format has these columns: a"),
    ],
)
def test_a_source_without_usable_rows_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    source = tmp_path / "x.jsonl"
    source.write_text(content)
    with pytest.raises(BadData, match=message):
        prep(tmp_path, source)


def test_refusing_every_row_for_its_length_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(BadData, match=r"none of 1 rows is left \(too_long 1\)"):
        prep(tmp_path, write_lines(tmp_path / "x.jsonl", [qa(1)]), tiny_model, max_length=1)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        run_stage(PREP, tmp_path, {"source": Artifact(Kind.SOURCE, "gone.jsonl", tmp_path / "gone.jsonl", "d")})


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    source = artifact(Kind.SOURCE, write_lines(tmp_path / "x.jsonl", [qa(1), qa(2)]))
    context = run_stage(PREP, tmp_path / "run", {"source": source})
    again = Context(
        context.config,
        context.inputs,
        tmp_path / "again",
        context.scratch,
        type(context.events)(context.scratch, events.append),
    )
    PREP.run(again)
    assert {"event": "note", "text": "test has only 0 rows: what is measured on it is uncertain"} in events


GOOD = st.builds(
    lambda q, a: json.dumps({"question": q, "answer": a}),
    st.sampled_from(["a", "b", "C", "c", " "]),
    st.text(max_size=3),
)
BAD = st.sampled_from(["{", "[]", '{"question": "q"}', '{"question": 1, "answer": "a"}', '"x"', "\ufeff{}"])


@given(st.lists(st.one_of(GOOD, BAD), max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_is_ever_lost(tmp_path: Path, lines: list[str]) -> None:
    source = tmp_path / "x.jsonl"
    source.write_text("".join(line + "\n" for line in [json.dumps(qa(1)), *lines]))
    prep(tmp_path, source, max_reject_rate=1, format="question_answer")  # most rows may be bad: name the format
    stats = stats_of(tmp_path)
    kept = rows_of(tmp_path)
    assert stats["rows_in"] == len(lines) + 1 == len(kept) + len(rejects_of(tmp_path))
    assert sorted(item["line"] for item in rejects_of(tmp_path)) == sorted(
        set(range(1, len(lines) + 2)) - {row["meta"]["line"] for row in kept}
    )
    openings = [
        {row["messages"][0]["content"].casefold() for row in read_split(tmp_path / "out/data", split, RowType.MESSAGES)}
        for split in SPLITS
    ]
    assert not openings[0] & openings[1]
    assert not openings[0] & openings[2]
    assert not openings[1] & openings[2]
