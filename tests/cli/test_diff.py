from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.rundir import RunDir
from ftcli.data.parquet_rows import write_parquet
from ftcli.data.rows import Row, write_jsonl
from tests.cli.in_process import ftcli
from tests.stages.prep.report_folder import stats, write_folder

Json = dict[str, Any]


def row(name: str, *, answer: str = "yes", line: int = 1) -> Row:
    messages = [{"role": "user", "content": f"Ask {name}?"}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": messages, "meta": {"file": "raw.jsonl", "line": line}}


MONDAY = {
    "train": [row("kept"), row("gone"), row("cased", answer="Yes"), row("wanderer")],
    "validation": [row("held")],
    "test": [],
}
FRIDAY = {
    "train": [row("new"), row("kept", line=7), row("cased")],
    "validation": [row("held"), row("wanderer")],
    "test": [row("newer")],
}


def publish(
    run: Path,
    splits: dict[str, list[Row]],
    *,
    figures: Json | None = None,
    id: str = "prep",
    fp: str = "a" * 12,
    **config: Any,
) -> Path:
    """A published result of prep, by the controller's own means."""
    directory = RunDir(run)
    work = directory.begin(id, fp)
    (work.out / "data").mkdir()
    for split, rows in splits.items():
        write_jsonl(work.out / "data" / f"{split}.jsonl", rows)
    write_folder(work.out / "report", figures or stats())
    inputs = {
        "source": [
            {"label": "raw", "ref": "raw.jsonl", "kind": "source", "digest": f"sha256:{config.pop('digest', 1)}"}
        ]
    }
    manifest = {
        "stage": "prep",
        "fingerprint": fp,
        "config": config,
        "inputs": inputs,
        "facts": {},
        "ended": "2026-01-01",
    }
    return directory.publish(work, id, fp, {"data": "data", "report": "report"}, manifest).path


def changed() -> Json:
    after = stats()
    after["rows_in"] += 10
    after["rejected"] |= {"near_duplicate": 30, "pii": 1}
    after["gates"][1]["passed"] = True
    after["lengths"]["total"]["mean"] = 151.25
    after["splits"]["test"]["rows"] = 41
    return after


@pytest.fixture
def monday(tmp_path: Path) -> Path:
    publish(tmp_path / "monday", MONDAY, near_threshold=0.9, keep_languages=[])
    return tmp_path / "monday"


@pytest.fixture
def friday(tmp_path: Path) -> Path:
    publish(tmp_path / "friday", FRIDAY, figures=changed(), near_threshold=0.85, keep_languages=["en"], digest=2)
    return tmp_path / "friday"


def diff_json(a: Path, b: Path) -> Json:
    called = ftcli("diff", a, b, "--json")
    assert (called.code, called.err) == (0, "")
    found: Json = json.loads(called.out)
    return found


def test_rows_are_told_apart_by_id(monday: Path, friday: Path):
    rows = diff_json(monday, friday)["rows"]
    assert (rows["before"], rows["after"], rows["in_both"]) == (5, 6, 4)
    found = {name: [item["id"] for item in group["examples"]] for name, group in rows["found"].items()}
    assert found == {
        "removed": ["gone"],
        "added": ["new", "newer"],
        "rewritten": ["cased"],  # and not "kept", of which only the line has changed
        "train → validation": ["wanderer"],
    }
    assert rows["found"]["added"]["rows"] == 2
    assert rows["found"]["added"]["splits"] == {"train": 1, "validation": 0, "test": 1}
    assert rows["found"]["removed"]["examples"] == [
        {"id": "gone", "split": "train", "place": "raw.jsonl:1", "text": "Ask gone?"}
    ]


def test_figures_that_differ_are_listed_with_both_values(monday: Path, friday: Path):
    figures = diff_json(monday, friday)["figures"]
    assert figures == {
        "rows": {"rows_in": [1000, 1010]},
        "rejected": {"near_duplicate": [21, 30], "pii": [None, 1]},
        "lengths": {"total.mean": [150.5, 151.25]},
        "splits": {"test.rows": [40, 41]},
        "gates": {"max_auc.passed": [False, True]},
    }


def test_settings_and_inputs_that_differ_are_listed(monday: Path, friday: Path):
    found = diff_json(monday, friday)
    assert found["settings"] == {"near_threshold": [0.9, 0.85], "keep_languages": [[], ["en"]]}
    assert found["inputs"] == {
        "source": [[{"ref": "raw.jsonl", "digest": "sha256:1"}], [{"ref": "raw.jsonl", "digest": "sha256:2"}]]
    }


def test_the_text_shows_what_was_taken_and_each_change(monday: Path, friday: Path):
    called = ftcli("diff", monday, friday)
    assert (called.code, called.err) == (0, "")
    lines = called.out.splitlines()
    assert lines[0] == f"A  {monday}/stages/prep/{'a' * 12}/report"
    cells = [line.split() for line in lines]
    for expected in (
        ["near_threshold", "0.9", "0.85", "-0.05"],
        ["keep_languages", "[]", "['en']"],
        ["source", "1", "raw.jsonl", "2", "raw.jsonl"],
        ["near_duplicate", "21", "30", "+9"],
        ["pii", "-", "1", "+1"],
        ["rows_in", "1,000", "1,010", "+10"],
        ["max_auc.passed", "no", "yes"],
    ):
        assert expected in cells
    assert "5 rows in A, 6 in B, 4 in both" in lines
    assert "train → validation: 1 (validation 1)" in lines
    assert lines[lines.index("removed: 1 (train 1)") + 1] == "    train raw.jsonl:1 Ask gone?"


def test_equal_results_are_said_to_be_equal(monday: Path):
    lines = ftcli("diff", monday, monday).out.splitlines()
    assert lines[2:] == ["", "The settings and figures are the same.", "", "5 rows in A, 5 in B, 5 in both"]


@pytest.mark.parametrize("part", ["", "stages/prep", "stages/prep/latest", "stages/prep/latest/report"])
def test_a_result_can_be_named_by_any_of_its_folders(monday: Path, friday: Path, part: str):
    found = diff_json(monday / part, friday)
    assert found["a"]["fingerprint"] == "a" * 12
    assert found["rows"]["before"] == 5


def test_a_report_alone_is_compared_by_its_figures(monday: Path, tmp_path: Path):
    write_folder(tmp_path / "copied", changed())
    found = diff_json(monday, tmp_path / "copied")
    assert found["rows"] is None
    assert found["figures"]["rows"] == {"rows_in": [1000, 1010]}
    assert (
        "Rows were not compared: no data folder beside the report of B."
        in ftcli("diff", monday, tmp_path / "copied").out
    )


def test_parquet_and_json_lines_are_compared_alike(monday: Path, tmp_path: Path):
    folder = publish(tmp_path / "other", {split: [] for split in MONDAY}) / "data"
    for split, rows in MONDAY.items():
        (folder / f"{split}.jsonl").unlink()
        write_parquet(folder / f"{split}.parquet", rows, ("messages",), with_tools=False)
    rows = diff_json(monday, tmp_path / "other")["rows"]
    assert rows["in_both"] == 5
    assert [group["rows"] for group in rows["found"].values()] == [0, 0, 0]


def test_what_is_no_result_of_prep_exits_2(monday: Path, tmp_path: Path):
    for path in (tmp_path / "gone", tmp_path):
        called = ftcli("diff", monday, path)
        assert (called.code, called.out) == (2, "")
        assert f"{path}: no result of prep" in called.err


def test_a_run_with_two_preparations_asks_which(monday: Path):
    publish(monday, FRIDAY, id="prep2", fp="b" * 12)
    called = ftcli("diff", monday, monday)
    assert called.code == 2
    assert f"name one of {monday}/stages/prep, {monday}/stages/prep2" in called.err
    assert diff_json(monday / "stages/prep", monday / "stages/prep2")["rows"]["after"] == 6


@pytest.mark.parametrize(("name", "text"), [("stats.json", "{"), ("stats.json", "[]")])
def test_a_damaged_report_exits_65_and_is_named(monday: Path, tmp_path: Path, name: str, text: str):
    folder = write_folder(tmp_path / "copied")
    (folder / name).write_text(text)
    called = ftcli("diff", monday, folder)
    assert called.code == 65
    assert str(folder / name) in called.err


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 7}'])
def test_a_line_that_is_no_row_exits_65_and_is_named(monday: Path, friday: Path, line: str):
    path = friday / "stages/prep" / ("a" * 12) / "data/train.jsonl"
    path.write_text(path.read_text() + line + "\n")
    called = ftcli("diff", monday, friday)
    assert called.code == 65
    assert f"{path}:4: no " in called.err


def test_text_from_rows_cannot_steer_the_terminal(monday: Path, tmp_path: Path):
    publish(tmp_path / "evil", {**MONDAY, "test": [row("\x1b[31m\nred\u202e")]})
    out = ftcli("diff", monday, tmp_path / "evil").out
    assert "Ask <U+001B>[31m red<U+202E>?" in out
    assert "\x1b" not in out


def test_no_more_than_twenty_figures_of_a_section_are_printed(monday: Path, tmp_path: Path):
    many = stats() | {"languages": {f"x{number:02}": number + 1 for number in range(30)}}
    publish(tmp_path / "many", MONDAY, figures=many)
    assert "  13 more (--json)" in ftcli("diff", monday, tmp_path / "many").out.splitlines()  # en, de and und are gone


def test_neither_torch_nor_pandas_is_imported(monday: Path):
    program = (
        f"import sys; sys.argv = ['ftcli', 'diff', {str(monday)!r}, {str(monday)!r}]\n"
        "from ftcli.cli.app import main\n"
        "main()\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "pandas", "transformers", "datasets", "matplotlib"} & set(done.stderr.split())
