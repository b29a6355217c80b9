"""The oracle for front matter is huggingface_hub's own reader; manifests are written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from ftcli.core.artifacts import write_json
from ftcli.core.stage import Artifact, Kind
from ftcli.stages.export.card import model_card, try_to_write_card
from ftcli.stages.export.lineage import UNKNOWN, front_matter, licence, model_name, tree
from tests.stages.export.exporting import context

HUB = "hf:org/chat-1b@" + "c" * 40
BASE = {"label": "", "ref": HUB, "kind": "model", "digest": "sha256:" + "b" * 64}
SOURCE = {"label": "", "ref": "/home/somebody/secret/rows", "kind": "source", "digest": "sha256:" + "d" * 64}
DATA = {"label": "", "ref": "stages/prep/111111111111/data", "kind": "data", "digest": "sha256:" + "e" * 64}
SFT_MODEL = {"label": "", "ref": "stages/sft/222222222222/model", "kind": "model", "digest": "sha256:" + "f" * 64}


def made(stage: str, settings: dict[str, Any], facts: dict[str, Any], **inputs: dict[str, Any]) -> dict[str, Any]:
    records = {name: [record] for name, record in inputs.items()}
    return {"stage": stage, "settings": settings, "facts": facts, "inputs": records, "outputs": {}, "ftcli": "9.9"}


@pytest.fixture
def source(tmp_path: Path) -> Artifact:
    """An adapter trained on a model that sft made of a model from the hub."""
    (tmp_path / "adapter").mkdir()
    base = Artifact(Kind.MODEL, SFT_MODEL["ref"], tmp_path, SFT_MODEL["digest"])
    prep_facts = {"data/train_rows": 90, "data/validation_rows": 5, "data/test_rows": 5}
    story = {
        "stages/policy/333333333333": made("lora", {"lora_r": 4}, {"val/loss": 1.25}, model=SFT_MODEL, data=DATA),
        "stages/sft/222222222222": made("sft", {"learning_rate": 1e-5}, {"val/loss": 2.0}, model=BASE, data=DATA),
        "stages/prep/111111111111": made("prep", {"limit": 100}, prep_facts, source=SOURCE),
    }
    digest = "sha256:" + "a" * 64
    return Artifact(Kind.MODEL, "stages/policy/333333333333/model", tmp_path / "adapter", digest, "x", base, made=story)


PARITY = {"positions": 100, "top1_agreement": 0.99, "logprob_max_diff": 0.3, "logprob_mean_diff": 0.01, "kl": 0.001}
PROOF = {"dtype": "bfloat16 as trained, bfloat16 as exported", "merged": {"parity": PARITY}}


def card(tmp_path: Path, source: Artifact, **inputs: Artifact) -> tuple[ModelCard, list[str]]:
    ctx, notes = context(tmp_path, {"from": source, **inputs})
    return ModelCard(model_card(ctx, PROOF), ignore_metadata_errors=False), notes


def test_the_front_matter_is_what_the_hub_reads(tmp_path: Path, source: Artifact) -> None:
    found, _ = card(tmp_path, source)
    data = found.data.to_dict()
    assert data == {
        "license": UNKNOWN,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ftcli", "lora", "sft"],
        "base_model": "org/chat-1b",
        "base_model_relation": "finetune",
    }


def test_the_text_tells_base_data_settings_figures_parity_and_lineage(tmp_path: Path, source: Artifact) -> None:
    text = card(tmp_path, source)[0].text
    for part in (
        "# chat-1b-policy",
        f"- base model: {HUB}, `{BASE['digest']}`",
        f"- data prep (111111111111): 90 train, 5 validation, 5 test rows, `{DATA['digest']}`",
        "- policy (lora, ftcli 9.9): lora_r 4",
        "- sft (sft, ftcli 9.9): learning_rate 1e-05",
        "| val/loss | 1.25 | policy |",
        "| merged, read from disk | 99.00% | 0.01 | 0.3 | 0.001 |",
        "On 100 answer tokens; bfloat16 as trained, bfloat16 as exported.",
    ):
        assert part in text
    assert "/home/somebody" not in text


def test_the_tree_opens_each_folder_once(source: Artifact) -> None:
    assert tree(source) == [
        "model: policy (333333333333) by lora  sha256:aaaaaaaaaaaa",
        "  model: sft (222222222222) by sft  sha256:ffffffffffff",
        f"    model: {HUB}  sha256:bbbbbbbbbbbb",
        "    data: prep (111111111111) by prep  sha256:eeeeeeeeeeee",
        "      source: rows  sha256:dddddddddddd",
        "  data: prep (111111111111) by prep  sha256:eeeeeeeeeeee",
    ]


def test_a_model_from_outside_has_no_story(tmp_path: Path) -> None:
    outside = Artifact(Kind.MODEL, str(tmp_path), tmp_path, "sha256:" + "a" * 64)
    found, _ = card(tmp_path, outside)
    assert model_name(outside) == tmp_path.name
    assert "## Training" not in found.text
    assert tree(outside) == [f"model: {tmp_path.name}  sha256:aaaaaaaaaaaa"]


# ---- licences


def test_an_unknown_licence_is_said_aloud(tmp_path: Path, source: Artifact) -> None:
    found, notes = card(tmp_path, source)
    assert f"- base model {HUB}: unknown" in found.text
    assert "- data rows: unknown" in found.text
    assert any("licence of hf:org/chat-1b" in note and "not known" in note for note in notes)


def test_the_licence_of_the_base_is_carried_over_from_its_own_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Base\n")
    outside = Artifact(Kind.MODEL, str(tmp_path), tmp_path, "sha256:" + "a" * 64)
    found, notes = card(tmp_path / "work", outside)
    assert found.data.license == "cc-by-nc-4.0"
    assert notes == []
    adapter = Artifact(Kind.MODEL, "/x/adapter", tmp_path / "x", "sha256:" + "b" * 64, base=outside)
    assert card(tmp_path / "work", adapter)[0].data.license == "cc-by-nc-4.0"


def test_the_licence_of_a_source_record_or_of_data_is_told(tmp_path: Path, source: Artifact) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "README.md").write_text("---\nlicense: odc-by\n---\n")
    record = {**SOURCE, "ref": str(rows)}
    known = {**BASE, "source": {"from": "pypi", "license": "apache-2.0"}}
    story = dict(source.made)
    story["stages/prep/111111111111"] = made("prep", {}, {}, source=record)
    story["stages/sft/222222222222"] = made("sft", {}, {}, model=known, data=DATA)
    found, _ = card(tmp_path, replace(source, made=story))
    assert found.data.license == "apache-2.0"
    assert "- data rows: odc-by" in found.text


@pytest.mark.parametrize(
    "text", ["", "# no front matter", "---\n: [\n---\n", "---\n- a list\n---\n", "---\nlicense:\n---\n"]
)
def test_a_card_without_usable_front_matter_has_no_licence(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert licence({"ref": str(tmp_path)}) == UNKNOWN
    assert front_matter(tmp_path / "README.md").get("license") is None


# ---- eval reports


def report(folder: Path, digest: str) -> Artifact:
    write_json(
        folder / "metrics.json",
        {
            "data": {"ref": "stages/prep/111111111111/data", "split": "test"},
            "models": {"base": {"perplexity": {"value": 9.0}}, "mine": {"perplexity": {"value": 3.5}}},
            "artifacts": {"base": {"digest": "sha256:other"}, "mine": {"digest": digest}},
        },
    )
    return Artifact(Kind.REPORT, "stages/eval/444444444444/report", folder, "sha256:r")


def test_figures_of_an_eval_report_that_measured_this_model_are_in_the_card(tmp_path: Path, source: Artifact) -> None:
    found, _ = card(tmp_path, source, report=report(tmp_path, source.digest))
    assert "| perplexity | 3.5 | eval, test rows of prep (111111111111) |" in found.text
    results = found.data.eval_results
    assert results is not None
    assert [(item.metric_type, item.metric_value, item.dataset_split) for item in results] == [
        ("perplexity", 3.5, "test")
    ]


def test_figures_of_other_models_are_not(tmp_path: Path, source: Artifact) -> None:
    found, notes = card(tmp_path, source, report=report(tmp_path, "sha256:something else"))
    assert "perplexity" not in found.text
    assert found.data.eval_results is None
    assert any("did not measure this model" in note for note in notes)


# ---- a card that cannot be made


def test_a_failing_card_is_a_note(tmp_path: Path, source: Artifact) -> None:
    torn = replace(source, made={"stages/policy/333333333333": {"stage": "lora"}})
    ctx, notes = context(tmp_path, {"from": torn})
    try_to_write_card(ctx, PROOF)
    assert not (ctx.output("model") / "README.md").exists()
    assert notes[-1] == "no model card was written: KeyError: 'inputs'"
