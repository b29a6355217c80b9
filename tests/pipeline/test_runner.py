from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import (
    BadData,
    Busy,
    FtcliError,
    GateFailed,
    GateNotEvaluable,
    NeedsHuman,
    OutOfMemory,
    StageFailed,
)
from ftcli.core.rundir import Published, RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.launch.inline import run_inline
from ftcli.launch.spec import Job, Result
from ftcli.pipeline.resolve import from_published
from ftcli.pipeline.runner import Decision, Task, decide, execute
from tests.pipeline.toy import MAKE, ask_task, join_task, judge_task, long_task, make_task


def run_it(task: Task, run: RunDir, said: list[str] | None = None, **options: Any) -> Published:
    say = (said if said is not None else []).append
    return execute(task, run, run_inline, lambda event: None, say, **options)


def rows(item: Published, label: str = "") -> Artifact:
    return from_published(item, "data", Kind.DATA, label)


def reason(task: Task, run: RunDir, **options: Any) -> str:
    decision = decide(task, run, **options)
    assert decision.run
    assert decision.cached is None
    return decision.reason


def test_a_stage_runs_once_and_is_then_cached(tmp_path: Path) -> None:
    run, said = RunDir(tmp_path), []
    first = run_it(make_task(), run, said)
    assert run_it(make_task(), run, said) == first
    assert run_it(make_task(step_seconds=0.001), run, said) == first, "speed is not in the fingerprint"
    assert said == ["make: run (first time)", "make: cached", "make: cached"]


def test_stage_json_tells_how_the_result_was_made(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    make = run_it(make_task(text="ü", step_seconds=0.001), run)
    item = run_it(join_task(rows(make, "first"), rows(make, "second")), run)
    stage = json.loads((make.path / "stage.json").read_text(encoding="utf-8"))
    assert stage["parts"] == {"stage": "make", "version": 1, "config": {"text": "ü"}, "inputs": {}}
    assert stage["fingerprint"].startswith(make.path.name)
    assert stage["config"]["text"] == "ü"
    assert stage["config"]["step_seconds"] == 0.001, "the whole config is kept"
    assert stage["facts"]["toy/first_step"] == 1
    assert stage["started"] <= stage["ended"]
    assert set(stage["software"]) >= {"ftcli", "python", "torch", "transformers", "trl", "peft"}
    assert stage["hardware"]["memory_bytes"] > 2**28
    inputs = item.manifest["inputs"]
    assert inputs["data"] == [
        {
            "label": "first",
            "ref": f"stages/make/{make.path.name}/data",
            "kind": "data",
            "digest": make.manifest["outputs"]["data"]["digest"],
        }
    ]
    assert [record["label"] for record in inputs["others"]] == ["second"]
    assert str(tmp_path) not in (item.path / "stage.json").read_text(), "a run can be moved"
    assert (make.path / "metrics.jsonl").read_text().count("\n") == 3
    assert run.pending() == {}


def test_the_reason_names_what_changed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    make, other = run_it(make_task(), run), run_it(make_task("other", text="bye"), run)
    run_it(join_task(rows(make, "a"), rows(make, "b")), run)
    assert reason(make_task(text="bye", steps=4), run) == "steps default -> 4, text default -> bye"
    run_it(make_task(text="bye"), run)
    assert reason(make_task(text="ciao"), run) == "text bye -> ciao"
    assert reason(make_task(seed=1), run) == "seed default -> 1, text bye -> default"
    assert reason(join_task(rows(other, "a"), rows(make, "b")), run) == "data changed"
    assert reason(join_task(rows(make, "a"), rows(make, "c")), run) == "others changed"
    assert reason(join_task(rows(make, "a")), run) == "others is gone"
    assert reason(join_task(rows(other, "a"), rows(make, "b"), seed=1), run) == "data changed, seed default -> 1"
    newer = replace(make_task(), stage=replace(MAKE, version=2))
    assert "make works differently since version 2" in reason(newer, run)
    assert (
        reason(replace(join_task(rows(make)), id="make"), run).endswith("was a make stage, text bye -> default")
        is False
    )
    assert "was a make stage" in reason(replace(join_task(rows(make)), id="make"), run)


def test_an_input_counts_by_content_so_an_equal_rerun_keeps_what_follows(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    make = run_it(make_task(), run)
    run_it(join_task(rows(make)), run)
    again = run_it(make_task(words=[], scale=2.0), run)
    assert again.path != make.path
    assert decide(join_task(rows(again)), run).run is False


def test_an_earlier_result_is_found_again_and_becomes_the_latest(tmp_path: Path) -> None:
    run, said = RunDir(tmp_path), []
    first = run_it(make_task(), run)
    second = run_it(make_task(text="bye"), run)
    assert run.latest("make") == second
    assert run_it(make_task(), run, said) == first
    assert said == ["make: cached"]
    assert run.latest("make") == first


def test_force_runs_again_and_says_so(tmp_path: Path) -> None:
    run, said = RunDir(tmp_path), []
    first = run_it(make_task(), run)
    second = run_it(make_task(), run, said, force=True)
    assert said == ["make: run (forced)"]
    assert first.path == second.path
    assert first.manifest["facts"] != second.manifest["facts"]
    assert run.latest("make") == second


def test_a_failed_stage_publishes_nothing_and_goes_on_from_its_work(tmp_path: Path) -> None:
    run, said = RunDir(tmp_path), []
    with pytest.raises(StageFailed, match="make failed: RuntimeError: out of luck") as caught:
        run_it(make_task(fail="error"), run)
    assert str(tmp_path) in caught.value.hint
    assert "log.txt" in caught.value.hint
    assert run.folders() == []
    item = run_it(make_task(fail="error"), run, said)
    assert said == ["make: run (interrupted earlier: goes on)"]
    assert item.manifest["facts"]["toy/first_step"] == 2


def test_what_the_stage_raised_is_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"^row 2 is bad$") as caught:
        run_it(make_task(fail="bad-data"), RunDir(tmp_path))
    assert caught.value.hint == "repair row 2"


def test_interrupted_work_on_other_settings_survives_a_cached_stage(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run_it(make_task(), run)
    with pytest.raises(StageFailed):
        run_it(make_task(fail="error", steps=9), run)
    run_it(make_task(), run)
    run_it(make_task(text="third"), run)
    assert run_it(make_task(fail="error", steps=9), run).manifest["facts"]["toy/first_step"] == 2


def test_a_cached_stage_is_returned_while_another_process_works_on_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    first = run_it(make_task(), run)
    run_it(make_task(text="bye"), run)
    with run.lock("make"):
        assert run_it(make_task(), run) == first
        with pytest.raises(Busy):
            run_it(make_task(text="ciao"), run)
        with pytest.raises(Busy):
            run_it(make_task(), run, force=True)


def test_a_stage_that_wrote_no_output_is_a_bug_and_publishes_nothing(tmp_path: Path) -> None:
    def idle(job: Job, sink: object) -> Result:
        return Result(0)

    run = RunDir(tmp_path)
    with pytest.raises(RuntimeError, match="wrote nothing"):
        execute(make_task(), run, idle, lambda event: None, lambda text: None)
    assert run.folders() == []


def test_damage_of_the_same_size_is_left_to_verify(tmp_path: Path) -> None:
    """A cache hit looks at sizes only; reading 16 GB of weights at every command would take a minute."""
    run = RunDir(tmp_path)
    path = run_it(make_task(), run).output("data") / "train.jsonl"
    path.write_text(path.read_text().replace("hello", "hallo"))
    assert decide(make_task(), run).run is False
    size = path.stat().st_size
    path.write_text("")
    damaged = f"its output is damaged: data/train.jsonl: 0 bytes, recorded {size}"
    assert decide(make_task(), run) == Decision(True, damaged)


def test_out_of_memory_is_tried_again_with_less(tmp_path: Path) -> None:
    said: list[str] = []
    item = run_it(long_task(room=2), RunDir(tmp_path), said)
    assert said == [
        "long: run (first time)",
        "long: out of memory; again with batch 4",
        "long: out of memory; again with batch 2",
    ]
    assert item.manifest["config"]["batch"] == 8  # what was asked for
    assert item.manifest["facts"]["batch"] == 2  # what was used


def test_out_of_memory_with_nothing_left_to_save_is_an_error(tmp_path: Path) -> None:
    run, said = RunDir(tmp_path), []
    with pytest.raises(OutOfMemory, match="1 rows") as raised:
        run_it(long_task(room=0), run, said)
    assert raised.value.exit_code == 71
    assert said[-1] == "long: out of memory; again with batch 1"
    assert run.folders() == []


def test_a_stage_without_a_leaner_way_is_not_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(OutOfMemory):
        run_it(make_task(room=2), RunDir(tmp_path), said)
    assert said == ["make: run (first time)"]


@pytest.mark.parametrize(("code", "error"), [(6, GateFailed), (7, GateNotEvaluable)])
def test_a_verdict_is_raised_after_the_report_is_published_and_again_without_computing(
    tmp_path: Path, code: int, error: type[FtcliError]
) -> None:
    run, said, told = RunDir(tmp_path), [], []
    for _ in range(2):
        with pytest.raises(error, match=r"^judge: GATE: it is so$") as caught:
            run_it(judge_task(verdict=code), run, said, done=told.append)
        assert (caught.value.exit_code, caught.value.hint) == (code, "read it")
    assert said == ["judge: run (first time)", "judge: cached"]
    assert told == [run.latest("judge")] * 2
    assert (told[0].output("report") / "summary.txt").read_text() == f"verdict {code}\n"
    assert run.pending() == {}


def test_a_stage_that_waits_for_people_keeps_its_work_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, said = RunDir(Path("a run")), []
    for _ in range(2):
        with pytest.raises(NeedsHuman, match="ask: 0 of 2 answers") as caught:
            run_it(ask_task(), run, said)
    assert caught.value.hint == "ftcli serve --run 'a run'"
    assert run.latest("ask") is None
    run.desk.parent.mkdir()
    run.desk.write_text("yes\nno\n")
    assert run_it(ask_task(), run, said).output("report").joinpath("summary.txt").read_text() == "0\n0\n2\n"
    again = "ask: run (waited for people: looks again)"
    assert said == ["ask: run (first time)", again, again]
    assert run.pending() == {}


def test_the_desk_of_a_run_elsewhere_is_named_in_full(tmp_path: Path) -> None:
    with pytest.raises(NeedsHuman) as caught:
        run_it(ask_task(), RunDir(tmp_path / "run"))
    assert caught.value.hint == f"ftcli serve --run {tmp_path / 'run'}"


def test_a_gate_that_passed_raises_nothing(tmp_path: Path) -> None:
    told: list[Published] = []
    assert run_it(judge_task(verdict=0), RunDir(tmp_path), done=told.append) == told[0]
