from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftcli.core.rundir import Published, RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.launch.inline import run_inline
from ftcli.pipeline.lineage import lineage, tree, verify
from ftcli.pipeline.resolve import from_outside, from_published
from ftcli.pipeline.runner import Task, execute
from tests.pipeline.toy import join_task, make_task


def run_it(task: Task, run: RunDir, **options: Any) -> Published:
    return execute(task, run, run_inline, lambda event: None, lambda text: None, **options)


def rows(item: Published) -> Artifact:
    return from_published(item, "data", Kind.DATA, "")


def shape(run: RunDir) -> list[str]:
    """The tree without times and fingerprints."""
    return [line.partition("(")[0].rstrip() + ("  (above)" * line.endswith("(above)")) for line in tree(run)]


def strip(lines: list[str], *items: Published) -> list[str]:
    for item in items:
        lines = [line.replace(item.path.name, "FP") for line in lines]
    return lines


def test_the_tree_shows_each_result_above_what_it_was_made_from(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.jsonl").write_text("{}\n")
    outside = from_outside(str(tmp_path / "d"), Kind.DATA, "")
    make = run_it(make_task(), run)
    one = run_it(join_task(rows(make), outside, id="one"), run)
    two = run_it(join_task(rows(make), id="two"), run)
    lines = strip(shape(run), make, one, two)
    assert lines == [
        "one  FP",
        "  data: make  FP",
        f"  others: {tmp_path}/d  {outside.digest[:19]}",
        "two  FP",
        "  data: make  FP",
    ]


def test_what_is_shown_already_is_not_opened_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    item = Artifact(
        Kind.DATA, "/x", tmp_path, "sha256:" + "a" * 64, base=Artifact(Kind.MODEL, "hf:b@1", tmp_path, "sha256:b")
    )
    work = run.begin("first", "0" * 12)
    (work.out / "data").mkdir()
    (work.out / "data" / "train.jsonl").write_text("x")
    record = {
        "label": "",
        "ref": item.ref,
        "kind": "data",
        "digest": item.digest,
        "base": {"ref": "hf:b@1", "digest": "sha256:b"},
    }
    first = run.publish(
        work,
        "first",
        "0" * 12,
        {"data": "data"},
        {"stage": "make", "inputs": {"raw": [record]}, "ended": "", "facts": {}},
    )
    run_it(join_task(rows(first), rows(first)), run)
    lines = shape(run)
    assert lines[1:] == [
        f"  data: first  {'0' * 12}",
        f"      raw: /x  sha256:{'a' * 12}",
        "        base: hf:b@1  sha256:b",
        f"  others: first  {'0' * 12}  (above)",
    ]


def test_a_result_that_only_an_old_output_used_is_still_shown(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    make, other = run_it(make_task(), run), run_it(make_task("other", text="x"), run)
    run_it(join_task(rows(make)), run)
    join = run_it(join_task(rows(other)), run)
    lines = strip(shape(run), make, other, join)
    assert sorted(lines) == ["  data: other  FP", "join  FP", "make  FP"]


def test_the_lineage_has_each_ancestor_also_those_that_a_newer_output_replaced(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    old = run_it(make_task(), run)
    join = run_it(join_task(rows(old)), run)
    new = run_it(make_task(text="new"), run)
    found = json.loads(json.dumps(lineage(run)))
    assert {item["path"] for item in found} == {str(item.path.relative_to(tmp_path)) for item in (old, join, new)}
    by_path = {item["path"]: item for item in found}
    joined = by_path[str(join.path.relative_to(tmp_path))]
    (record,) = joined["inputs"]["data"]
    producer = by_path[record["ref"].rpartition("/")[0]]
    assert producer["outputs"]["data"]["digest"] == record["digest"], "the chain of digests holds"
    assert producer["path"] == str(old.path.relative_to(tmp_path))


def test_verify_names_everything_that_changed_also_in_replaced_outputs(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    old, new = run_it(make_task(), run), run_it(make_task(text="new"), run)
    join = run_it(join_task(rows(new)), run)
    more = run_it(make_task("more"), run)
    assert verify(run) == {}
    (old.output("data") / "train.jsonl").write_text("x")
    (new.path / "added").touch()
    (join.path / "stage.json").unlink()
    (more.path / "stage.json").write_text("{")
    found = {path.split("/")[1]: texts for path, texts in verify(run).items() if path.split("/")[1] != "make"}
    assert found["join"] == ["stage.json: missing"]
    assert found["more"][0].startswith("stage.json: no valid JSON")
    assert verify(run)[str(new.path.relative_to(tmp_path))] == ["added: not recorded"]
    assert len(verify(run)) == 4


def test_an_empty_run_has_no_lineage(tmp_path: Path) -> None:
    assert (tree(RunDir(tmp_path)), lineage(RunDir(tmp_path)), verify(RunDir(tmp_path))) == ([], [], {})
