from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ftcli.cli.app import app
from ftcli.cli.compare import figures_file
from ftcli.core.errors import GateFailed, GateNotEvaluable, UsageError
from ftcli.metrics.figures import Figure, Figures, write_figures
from ftcli.metrics.names import METRICS
from ftcli.metrics.statistics import mean_of
from tests.metrics.test_statistics import BASE, TUNED

IDS = tuple(f"row-{number}" for number in range(20))


def scored(values: list[float], signature: str = "f1") -> Figures:
    return {"rougeL": Figure("rougeL", METRICS["rougeL"], mean_of(values), IDS[: len(values)], signature)}


def kept(folder: Path, **models: Figures) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_figures(folder / "examples.json", models)
    return folder


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    return kept(tmp_path / "a", lora=scored(BASE)), kept(tmp_path / "b", lora=scored(TUNED), other=scored(BASE))


def compare(*arguments: object) -> str:
    called = CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)
    assert called.exit_code == 0, called.output
    return called.stdout


def test_the_change_is_that_of_the_reference_with_its_exact_p(sides: tuple[Path, Path]) -> None:
    found = json.loads(compare(*sides, "--json"))
    (entry,) = found["comparisons"]
    assert (entry["model"], entry["against"], entry["n"]) == ("B:lora", "A:lora", 20)
    assert entry["change"] == pytest.approx(0.0495)
    assert entry["se"] == pytest.approx(0.011180, abs=1e-6)
    assert entry["p"] == pytest.approx(0.0004, abs=0.0004)  # exact: 0.00039864; 10,000 draws
    assert entry["status"] == "improved"
    assert found["gate"] is None


def test_the_table_names_both_sides(sides: tuple[Path, Path]) -> None:
    text = compare(*sides)
    assert text.splitlines()[:2] == [f"A  {sides[0] / 'examples.json'}", f"B  {sides[1] / 'examples.json'}"]
    assert "A:lora" in text
    assert "improved" in text
    assert max(map(len, text.splitlines()[2:])) <= 110


def test_models_of_other_labels_are_paired_by_hand(sides: tuple[Path, Path]) -> None:
    found = json.loads(compare(*sides, "--model", "lora=other", "--json"))
    (entry,) = found["comparisons"]
    assert (entry["model"], entry["change"], entry["p"], entry["status"]) == ("B:other", 0.0, 1.0, "equivalent")


def test_a_run_against_itself_changes_nothing(sides: tuple[Path, Path]) -> None:
    found = json.loads(compare(sides[1], sides[1], "--json"))
    assert [(one["change"], one["p"]) for one in found["comparisons"]] == [(0.0, 1.0), (0.0, 1.0)]


def test_rules_end_with_the_exit_codes_of_a_gate(sides: tuple[Path, Path]) -> None:
    a, b = sides
    assert "GATE PASSED" in compare(a, b, "--gate", "{metric: rougeL, max_drop: 0.01}", "--fail-if", "rougeL.delta < 0")
    with pytest.raises(GateFailed, match="GATE FAILED"):
        compare(b, a, "--gate", "{metric: rougeL, max_drop: 0.01}")
    with pytest.raises(GateFailed, match=r"rougeL\.delta < -0\.01"):
        compare(b, a, "--fail-if", "rougeL.delta < -0.01")
    with pytest.raises(GateNotEvaluable, match=r"no metric general\.nll was measured"):
        compare(a, b, "--gate", "{metric: general.nll}")


@pytest.mark.parametrize("rule", ["{metric: rougeL, model: lroa}", "{metric: rougeL, against: base}"])
def test_a_rule_about_no_pair_is_refused_and_not_left_out(sides: tuple[Path, Path], rule: str) -> None:
    with pytest.raises(UsageError, match=r"gate: rougeL not worse.*: no such pair is compared") as raised:
        compare(*sides, "--gate", rule, "--gate", "{metric: rougeL}")
    assert raised.value.hint.startswith("there is B:lora against A:lora;")


def test_a_rule_may_name_both_sides_of_its_pair(sides: tuple[Path, Path]) -> None:
    named = "{metric: rougeL, model: lora, against: lora}", "{metric: rougeL, model: 'B:lora', against: 'A:lora'}"
    with pytest.raises(UsageError, match="lora is to be compared with itself"):
        compare(*sides, "--gate", named[0])
    assert "GATE PASSED (1 passed)" in compare(*sides, "--gate", named[1])
    one_of_two = compare(sides[1], sides[1], "--gate", "{metric: rougeL, model: other}")
    assert "GATE PASSED (1 passed)" in one_of_two


def test_a_pair_that_is_asked_for_twice_is_compared_once(sides: tuple[Path, Path]) -> None:
    found = json.loads(compare(*sides, "--model", "lora", "--model", "lora", "--json"))
    assert found["pairs"] == [["A:lora", "B:lora"]]
    assert len(found["comparisons"]) == 1


def test_figures_computed_differently_are_named_and_not_compared(tmp_path: Path) -> None:
    a = kept(tmp_path / "a", lora=scored(BASE, "tok:ascii"))
    b = kept(tmp_path / "b", lora=scored(TUNED, "tok:words"))
    (entry,) = json.loads(compare(a, b, "--json"))["comparisons"]
    assert (entry["status"], entry["change"]) == ("not evaluable", None)
    assert "tok:ascii against tok:words" in entry["reason"]


def test_only_rows_of_both_count(tmp_path: Path) -> None:
    a, b = kept(tmp_path / "a", lora=scored(BASE)), kept(tmp_path / "b", lora=scored(TUNED[:12]))
    (entry,) = json.loads(compare(a, b, "--json"))["comparisons"]
    assert (entry["n"], entry["left_out"]) == (12, 8)
    assert entry["p"] == pytest.approx(0.01367188)  # the reference's exact sign-flip p of the first 12 rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "sft"], "no model sft"),
        (["--model", "lora=sft"], "no model sft"),
        (["--gate", "{metric: rougeLL}"], "did you mean rougeL"),
        (["--gate-mode", "sure"], "--gate-mode: input should be"),
        (["--fail-if", "rougeL.delta <"], "--fail-if: "),
        (["--gate", "xyz"], "--gate.0: a rule is a mapping"),
        (["--confidence", "2"], "confidence"),
    ],
)
def test_a_mistake_is_one_message(sides: tuple[Path, Path], arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        compare(*sides, *arguments)
    assert message in raised.value.message + raised.value.hint


def test_what_holds_no_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no result of eval"):
        figures_file(tmp_path)
    with pytest.raises(UsageError, match="no model stands in both: lora and sft"):
        compare(kept(tmp_path / "a", lora=scored(BASE)), kept(tmp_path / "b", sft=scored(BASE)))


def test_a_stage_folder_and_its_latest_link_stand_for_their_report(tmp_path: Path) -> None:
    kept(tmp_path / "stages" / "eval" / "abc" / "report", lora=scored(BASE))
    (tmp_path / "stages" / "eval" / "latest").symlink_to("abc")
    expected = tmp_path / "stages" / "eval" / "abc" / "report" / "examples.json"
    for path in (expected, expected.parent, expected.parents[1], tmp_path / "stages" / "eval"):
        assert figures_file(path) == expected
