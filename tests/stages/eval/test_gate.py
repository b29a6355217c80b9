"""Gates and leaks in whole evaluations: the report is written whatever the verdict, and the facts carry it to the controller."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import write_jsonl
from tests.conftest import artifact
from tests.stages.eval.evaluating import (
    comparison,
    evaluate,
    made_from,
    notes_of,
    report_of,
    source,
    unlike_rows,
)
from tests.tiny import write_tiny_model

DEAR = {"metric": "perplexity", "max_ratio": 1.05}
LEAKED = 2


@pytest.fixture(autouse=True)
def _no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def test_a_damaged_model_fails_the_gate_and_the_report_is_written(
    tmp_path: Path, base: Artifact, damaged: Artifact, data: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "step-summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    gate = (DEAR, {"metric": "hit_max_rate", "max": 1.0})
    ctx = evaluate(tmp_path, {"models": (base, damaged), "data": data}, gate=gate)
    fact = ctx.events.summary["gate"]
    assert fact["exit_code"] == 6
    assert "damaged: perplexity max_ratio 1.05" in fact["message"]
    report = tmp_path / "out" / "report"
    result, _ = report_of(tmp_path)
    assert json.loads((report / "gate.json").read_text()) == result["gate"]
    assert [one["status"] for one in result["gate"]["results"]] == ["failed", "passed"]
    suite = ElementTree.parse(report / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert [case.find("failure") is not None for case in suite.iter("testcase")] == [True, False]
    markdown = (report / "summary.md").read_text()
    assert "GATE FAILED" in markdown
    assert page.read_text().startswith(f"before\n{markdown}")
    assert "GATE FAILED" in (report / "summary.txt").read_text()
    assert "Gate failed" in (report / "report.html").read_text()


def test_the_same_model_passes_the_gate_that_the_damaged_one_fails(
    tmp_path: Path, base: Artifact, data: Artifact
) -> None:
    again = replace(base, label="again", digest="sha256:the same once more")
    ctx = evaluate(tmp_path, {"models": (base, again), "data": data}, gate=(DEAR,), gate_mode="non-inferior")
    assert ctx.events.summary["gate"]["exit_code"] == 0


def test_a_general_ability_that_is_lost_fails_the_gate(
    tmp_path: Path, base: Artifact, damaged: Artifact, data: Artifact
) -> None:
    rule = {"metric": "general.nll", "max_drop": 0.05}
    settings = {"suite": "general", "suite_limit": 24, "metrics": ("perplexity",)}
    ctx = evaluate(tmp_path, {"models": (base, damaged), "data": data}, gate=(rule,), **settings)
    assert ctx.events.summary["gate"]["exit_code"] == 6
    assert comparison(report_of(tmp_path)[0], "damaged", "base", "general.nll")["status"] == "regressed"


def test_an_expression_gates_like_a_rule(tmp_path: Path, base: Artifact, damaged: Artifact, data: Artifact) -> None:
    inputs = {"models": (base, damaged), "data": data}
    for limit, code in ((1.05, 6), (1e30, 0)):
        ctx = evaluate(tmp_path / str(code), inputs, metrics=("perplexity",), fail_if=(f"perplexity.ratio > {limit}",))
        assert ctx.events.summary["gate"]["exit_code"] == code


def test_a_metric_that_could_not_be_measured_does_not_pass(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    """Questions need a chat template, and plain text does not."""
    folder = write_tiny_model(tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    rows = tmp_path / "rows"
    rows.mkdir()
    write_jsonl(rows / "test.jsonl", [{"id": "a", "text": "the cat sat", "meta": {}}])
    inputs = {"models": (base, artifact(Kind.MODEL, folder, label="plain")), "data": artifact(Kind.DATA, rows)}
    settings = {"metrics": ("perplexity",), "suite": "general", "suite_limit": 6}
    ctx = evaluate(tmp_path, inputs, gate=({"metric": "general.nll"},), **settings)
    assert ctx.events.summary["gate"]["exit_code"] == 7
    assert "general.nll of plain was not measured" in ctx.events.summary["gate"]["message"]
    suite = ElementTree.parse(tmp_path / "out/report/junit.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")


def test_a_file_of_an_earlier_evaluation_is_a_baseline(
    tmp_path: Path, base: Artifact, lora: Artifact, damaged: Artifact, data: Artifact
) -> None:
    settings = {"metrics": ("perplexity", "rouge")}
    evaluate(tmp_path / "before", {"models": (base, lora), "data": data}, **settings)
    kept = shutil.copy(tmp_path / "before/out/report/examples.json", tmp_path / "baseline.json")
    gate = ({**DEAR, "model": "lora", "against": "baseline_file", "mode": "non-inferior"},)
    inputs = {"data": data, "baseline": source(Path(kept))}
    ctx = evaluate(tmp_path / "same", {**inputs, "models": (base, lora)}, gate=gate, **settings)
    found = comparison(report_of(tmp_path / "same")[0], "lora", "baseline_file", "perplexity")
    assert (found["change"], found["n"]) == (1.0, 8)
    assert ctx.events.summary["gate"]["exit_code"] == 0
    worse = replace(damaged, label="lora")
    ctx = evaluate(tmp_path / "worse", {**inputs, "models": (base, worse)}, gate=gate, **settings)
    assert ctx.events.summary["gate"]["exit_code"] == 6
    assert "baseline_file" not in report_of(tmp_path / "worse")[0]["models"]


@pytest.mark.parametrize("rule", [{"metric": "perplexity"}, {"expr": "perplexity.ratio > 1.05"}])
def test_a_rule_against_a_file_is_about_the_last_model_alone(
    tmp_path: Path, base: Artifact, lora: Artifact, damaged: Artifact, data: Artifact, rule: dict[str, str]
) -> None:
    """The file has figures of the last one: another that is worse than these is none of its business."""
    settings = {"metrics": ("perplexity",)}
    evaluate(tmp_path / "before", {"models": (base, lora), "data": data}, **settings)
    inputs = {
        "models": (base, damaged, lora),
        "data": data,
        "baseline": source(tmp_path / "before/out/report/examples.json"),
    }
    evaluate(tmp_path / "after", inputs, gate=({**rule, "against": "baseline_file"},), **settings)
    [found] = report_of(tmp_path / "after")[0]["gate"]["results"]
    assert (found["model"], found["against"], found["status"]) == ("lora", "baseline_file", "passed")


@pytest.mark.parametrize("alone", [False, True], ids=["beside its base", "alone"])
def test_a_policy_may_not_gate_on_the_reward_that_it_was_trained_for(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, reward: Artifact, alone: bool
) -> None:
    policy = made_from(lora, "ppo", reward=reward)
    gate = ({"metric": "reward_sampled", "min": -1e6}, {"metric": "reward_greedy", "min": -1e6})
    inputs = {"models": policy if alone else (base, policy), "data": data, "reward": reward}
    notes: list[str] = []
    ctx = evaluate(
        tmp_path, inputs, lambda event: notes.append(event.get("text", "")), metrics=("perplexity",), limit=4, gate=gate
    )
    assert ctx.events.summary["gate"]["exit_code"] == 7
    assert "lora was trained to please" in ctx.events.summary["gate"]["message"]
    assert any("reward_sampled may not gate: lora was trained to please" in text for text in notes)


def test_another_policy_may_gate_on_a_reward(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, reward: Artifact
) -> None:
    inputs = {"models": (base, lora), "data": data, "reward": reward}
    gate = ({"metric": "reward_sampled", "min": -1e6},)
    ctx = evaluate(tmp_path, inputs, metrics=("perplexity",), limit=4, gate=gate)
    assert ctx.events.summary["gate"]["exit_code"] == 0


# Leaks -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def leaky(tmp_path: Path) -> Artifact:
    """Rows of which the first two of the test split are also in the train split."""
    folder = tmp_path / "leaky"
    folder.mkdir()
    rows = unlike_rows(14)
    write_jsonl(folder / "test.jsonl", rows[:8])
    write_jsonl(folder / "validation.jsonl", [])
    write_jsonl(folder / "train.jsonl", [*rows[:LEAKED], *rows[8:]])
    return artifact(Kind.DATA, folder)


def test_rows_that_a_model_was_trained_on_are_an_error(
    tmp_path: Path, base: Artifact, lora: Artifact, leaky: Artifact
) -> None:
    inputs: dict[str, Any] = {"models": (base, made_from(lora, "lora", model=base, data=leaky)), "data": leaky}
    with pytest.raises(UsageError, match="2 of 8 rows have a prompt that lora was trained on: prose-0") as caught:
        evaluate(tmp_path, inputs)
    assert "allow_leak" in caught.value.hint
    assert not (tmp_path / "out" / "report").exists()


def test_a_leak_that_is_allowed_gives_the_figures_without_it_as_well(
    tmp_path: Path, base: Artifact, lora: Artifact, leaky: Artifact
) -> None:
    """They are those of an evaluation that never saw the leaked rows."""
    tuned = made_from(lora, "lora", model=base, data=leaky)
    inputs: dict[str, Any] = {"models": (base, tuned), "data": leaky}
    notes = notes_of(tmp_path / "all", inputs, allow_leak=True)
    assert any(text.startswith("leakage: 2 of 8 rows have a prompt that was trained on") for text in notes)
    result, _ = report_of(tmp_path / "all")
    assert (result["leakage"]["exact"], result["leakage"]["near"]) == (LEAKED, 0)
    assert {one["id"] for one in result["leakage"]["examples"]} == {"prose-0", "prose-1"}
    assert result["leakage"]["unknown"] == [
        f"base: {base.ref} was not made in a run directory, so its training data is not known"
    ]
    clean = tmp_path / "clean"
    shutil.copytree(leaky.path, clean)
    write_jsonl(clean / "test.jsonl", unlike_rows(14)[LEAKED:8])
    evaluate(tmp_path / "without", {"models": (base, lora), "data": artifact(Kind.DATA, clean)})
    expected, _ = report_of(tmp_path / "without")
    assert result["clean"]["rows"] == 8 - LEAKED
    assert result["clean"]["comparisons"] == expected["comparisons"]


def test_without_a_leak_there_are_no_figures_without_it(
    tmp_path: Path, base: Artifact, lora: Artifact, leaky: Artifact
) -> None:
    """The model was trained on the same file, and what is evaluated is another split of it."""
    write_jsonl(leaky.path / "validation.jsonl", unlike_rows(4, seed=2))
    data = artifact(Kind.DATA, leaky.path)
    tuned = made_from(lora, "lora", model=base, data=data)
    evaluate(tmp_path, {"models": (base, tuned), "data": data}, split="validation", metrics=("perplexity",))
    result, _ = report_of(tmp_path)
    assert result["clean"] is None
    [checked] = result["leakage"]["checked"]
    assert (checked["label"], checked["rows"], result["leakage"]["exact"]) == ("lora", 8, 0)


def test_a_plain_text_that_was_trained_on_is_an_error(tmp_path: Path, base: Artifact, lora: Artifact) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    rows = [{"id": f"t{index}", "text": f"{text} of the list", "meta": {}} for index, text in enumerate(("one", "two"))]
    write_jsonl(folder / "test.jsonl", rows)
    write_jsonl(folder / "train.jsonl", [{**rows[1], "id": "other"}])
    data = artifact(Kind.DATA, folder)
    inputs = {"models": (base, made_from(lora, "lora", data=data)), "data": data}
    with pytest.raises(UsageError, match=r"1 of 2 rows have a text that lora was trained on: t1 \("):
        evaluate(tmp_path, inputs)
