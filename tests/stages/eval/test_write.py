"""The files of a report: their names, their shapes, and that what models and data say stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from ftcli.core.stage import Artifact, Context, Kind
from ftcli.data.rows import Row, read_jsonl
from ftcli.metrics.figures import read_figures
from tests.conftest import artifact, write_data
from tests.stages.eval.evaluating import evaluate, report_of
from tests.tiny import messages_row

FILES = {"report.html", "report.md", "summary.txt", "metrics.json", "examples.json", "samples.jsonl"}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, base: Artifact, lora: Artifact, data: Artifact, reward: Artifact
) -> tuple[Path, Context[Any]]:
    folder = tmp_path_factory.mktemp("run")
    inputs = {"models": (base, lora), "data": data, "reward": reward}
    return folder, evaluate(folder, inputs, samples_per_prompt=2, generation_limit=3)


def test_every_output_file_is_written(run: tuple[Path, Context[Any]]) -> None:
    folder, _ = run
    assert {path.name for path in (folder / "out" / "report").iterdir()} == FILES


def test_metrics_json_has_the_keys_of_format_2(run: tuple[Path, Context[Any]]) -> None:
    result, _ = report_of(run[0])
    assert result["format"] == 2
    assert set(result) == {
        "format", "baseline", "data", "rows", "dtype", "device", "settings", "metrics", "models", "comparisons", "clean",
        "gate", "leakage", "suites", "judges", "work", "reward", "artifacts",
        "versions",
    }  # fmt: skip
    assert (result["dtype"], result["device"]) == ("float32", "cpu")
    assert result["settings"]["max_new_tokens"] == 6
    assert (result["gate"], result["clean"]) == (None, None)


def test_examples_json_gives_the_values_of_metrics_json(run: tuple[Path, Context[Any]]) -> None:
    result, _ = report_of(run[0])
    figures = read_figures(run[0] / "out/report/examples.json")
    for label, own in result["models"].items():
        assert list(figures[label]) == list(own)
        for name, figure in own.items():
            assert figures[label][name].value() == pytest.approx(figure["value"], rel=1e-12)


def test_metrics_jsonl_has_one_line_for_each_model(run: tuple[Path, Context[Any]]) -> None:
    lines = list(read_jsonl(run[0] / "scratch" / "metrics.jsonl"))
    assert [line["step"] for line in lines] == [0, 1]
    assert lines[1]["lora/perplexity"] == report_of(run[0])[0]["models"]["lora"]["perplexity"]["value"]


def test_the_facts_have_the_short_table(run: tuple[Path, Context[Any]]) -> None:
    facts = run[1].events.summary
    assert {"base", "lora"} <= set(facts["table"][0])
    assert (facts["rows"], facts["models"]) == (8, 2)
    assert "gate" not in facts


def test_a_sample_has_what_each_model_answered_and_what_that_is_worth(run: tuple[Path, Context[Any]]) -> None:
    _, samples = report_of(run[0])
    assert [set(row) for row in samples] == [{"id", "prompt", "reference", "models"}] * 8
    scorer = RougeScorer(["rougeL"])
    for row in samples[:3]:
        for own in row["models"].values():
            assert set(own) == {"reference_nll", "reference_tokens", "greedy", "sampled"}
            assert set(own["greedy"]) == {"text", "finish_reason", "tokens", "score", "metrics"}
            assert [set(one) for one in own["sampled"]] == [{"text", "finish_reason", "tokens", "score"}] * 2
            assert own["greedy"]["finish_reason"] in ("stop", "length")
            expected = scorer.score(row["reference"], own["greedy"]["text"])["rougeL"].fmeasure
            assert own["greedy"]["metrics"]["rougeL"] == pytest.approx(expected)
            assert own["greedy"]["metrics"]["exact_match"] == float(own["greedy"]["text"] == row["reference"])
    for row in samples[3:]:  # not answered
        assert set(row["models"]["lora"]) == {"reference_nll", "reference_tokens"}


def test_hostile_text_of_data_stays_text(tmp_path: Path, base: Artifact) -> None:
    def row(index: int, text: str) -> Row:
        made: Any = {**messages_row(index), "id": f"{index}{text}"}
        for message in made["messages"]:
            message["content"] += text
        return made  # type: ignore[no-any-return]

    pages = []
    for name, text in (("hostile", HOSTILE), ("harmless", "")):
        folder = write_data(tmp_path / name / "data", lambda index, text=text: row(index, text), 0, 0, 2)  # type: ignore[misc]
        evaluate(tmp_path / name, {"models": base, "data": artifact(Kind.DATA, folder)})
        pages.append((tmp_path / name / "out/report/report.html").read_text())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages[0]
    assert HOSTILE not in pages[0]
    assert pages[0].lower().count("<script") == pages[1].lower().count("<script")
