"""The gate from the command to the exit code: a damaged model does not pass, and the same model does, against a file too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.cli.in_process import Called, ftcli

SETTINGS = (
    *("--metrics", "perplexity", "--suite", "none", "--precision", "fp32", "--resamples", "200", "--no-use-cache"),
    *("--in-process", "--confidence", "0.95"),
)
RULES = ("--gate", "{metric: perplexity, max_ratio: 1.05}", "--fail-if", "perplexity.delta > 100000")


@pytest.fixture(scope="module")
def damaged(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, ten times as sure of everything that it does not know."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("models") / "damaged")
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight.mul_(10)
    model.save_pretrained(folder)
    return folder


def evaluate(run: Path, data: Path, *arguments: str | Path) -> Called:
    return ftcli("eval", "--run", run, "--data", data, *SETTINGS, *arguments)


def test_a_damaged_model_ends_with_6_and_its_report_is_there(
    tiny_model: Path, damaged: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    models = ("--models", f"base={tiny_model}", "--models", f"new={damaged}")
    called = evaluate(tmp_path / "run", tiny_data, *models, *RULES)
    assert called.code == 6, called.err
    assert "error: eval: GATE FAILED (1 failed, 1 passed): new: perplexity max_ratio 1.05" in called.err
    folder = Path(called.out.strip())
    gate = json.loads((folder / "gate.json").read_text())
    assert (gate["exit_code"], [one["status"] for one in gate["results"]]) == (6, ["failed", "passed"])
    assert gate["results"][0]["change"] > 1.05
    root = ElementTree.parse(folder / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "1", "0")
    table = page.read_text()
    assert "GATE FAILED" in table
    again = evaluate(tmp_path / "run", tiny_data, *models, *RULES)
    assert (again.code, again.out, again.err.splitlines()[0]) == (6, called.out, "eval: cached")
    assert page.read_text() == table, "told once"
    turned = ("--models", f"base={damaged}", "--models", f"new={tiny_model}")
    assert evaluate(tmp_path / "other", tiny_data, *turned, *RULES).code == 0


def test_the_same_model_passes_every_mode_and_so_it_does_against_its_own_figures(
    tiny_model: Path, damaged: Path, tiny_data: Path, tmp_path: Path
) -> None:
    models = ("--models", f"base={tiny_model}", "--models", f"new={tiny_model}")
    first = evaluate(tmp_path / "run", tiny_data, *models, *RULES, "--gate-mode", "non-inferior", "--strict")
    assert first.code == 0, first.err
    gate = json.loads((Path(first.out.strip()) / "gate.json").read_text())
    assert (gate["results"][0]["change"], gate["results"][0]["ci"], gate["results"][0]["se"]) == (1.0, [1.0, 1.0], 0.0)
    saved = Path(first.out.strip()) / "examples.json"
    rule = ("--gate", "{metric: perplexity, against: baseline_file}", "--baseline", saved)
    kept = evaluate(tmp_path / "kept", tiny_data, "--models", f"new={tiny_model}", *rule)
    assert kept.code == 0, kept.err
    lost = evaluate(tmp_path / "lost", tiny_data, "--models", f"new={damaged}", *rule)
    assert lost.code == 6, lost.err


def test_what_cannot_be_judged_ends_with_7_and_what_is_misspelt_with_2(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    models = ("--models", f"base={tiny_model}", "--models", f"new={tiny_model}")
    called = evaluate(tmp_path / "run", tiny_data, *models, "--gate", "{metric: perplexity, min_n: 500}")
    assert called.code == 7, called.err
    assert "perplexity: 8 rows that both models have, 500 are needed" in called.err
    assert (Path(called.out.strip()) / "report.html").is_file()
    misspelt = evaluate(tmp_path / "none", tiny_data, *models, "--fail-if", "perplexty.ratio > 1")
    assert misspelt.code == 2
    assert "--fail-if: unknown metric perplexty; did you mean perplexity?" in misspelt.err
    assert not (tmp_path / "none").exists()
    unknown = evaluate(tmp_path / "unknown", tiny_data, *models, "--fail-if", "nwe.perplexity.ratio > 1")
    assert unknown.code == 2, unknown.err
    assert "no model nwe was measured; did you mean new?" in unknown.err
