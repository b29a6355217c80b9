from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.artifacts import file_sha256
from ftcli.core.errors import BadData, GateFailed, UsageError
from ftcli.core.rundir import RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.pipeline.resolve import from_published
from tests.cli.in_process import ftcli
from tests.conftest import artifact, write_data
from tests.models.adapters import peft_adapter, stored_as
from tests.models.test_gguf import write_gguf
from tests.stages.export.exporting import export, fake_converter
from tests.tiny import messages_row

IDS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_as(tiny_model, tmp_path_factory.mktemp("base") / "wide", torch.float32)


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return peft_adapter(base, tmp_path_factory.mktemp("lora") / "adapter")[0]


@pytest.fixture(scope="module")
def qlora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return peft_adapter(base, tmp_path_factory.mktemp("qlora") / "adapter", quantization="nf4")[0]


@pytest.fixture
def data(tiny_data: Path) -> Artifact:
    return artifact(Kind.DATA, tiny_data, ref="stages/prep/0123456789ab/data")


# ---- merged


def test_a_merged_folder_is_a_plain_model_folder_with_its_proof(tmp_path: Path, lora: Artifact, data: Artifact) -> None:
    folder, notes, facts = export(tmp_path, {"from": lora, "data": data})
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "parity.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype is torch.float32
    proof = json.loads((folder / "parity.json").read_text())
    assert proof["merged"]["parity"]["top1_agreement"] == 1
    assert proof["base_without_adapter"]["parity"]["top1_agreement"] < 0.9
    assert proof["rows"] == "8 test rows of stages/prep/0123456789ab/data"
    assert facts["parity/top1_agreement"] == 1
    assert facts["parity/dtype"] == "float32 as trained, float32 as exported"
    assert any("same likeliest token" in note and "float32 against float32" in note for note in notes)
    assert any("the base without its adapter" in note for note in notes)


def test_a_qlora_adapter_is_proven_against_its_4_bit_base(tmp_path: Path, qlora: Artifact, data: Artifact) -> None:
    folder, notes, facts = export(tmp_path, {"from": qlora, "data": data})
    assert facts["parity/top1_agreement"] >= 0.9
    assert any("dequantised 4-bit base" in note for note in notes)
    assert "trained on the base in 4 bits (nf4)" in (folder / "README.md").read_text()


def test_without_data_the_trained_models_own_answers_to_built_in_prompts_count(tmp_path: Path, lora: Artifact) -> None:
    folder, _, facts = export(tmp_path, {"from": lora}, parity_rows=3)
    assert facts["parity/rows"] == "3 built-in prompts with the trained model's own answers"
    assert facts["parity/top1_agreement"] == 1
    assert 3 <= facts["parity/positions"] <= 96
    assert json.loads((folder / "parity.json").read_text())["rows"] == facts["parity/rows"]


def test_a_whole_model_is_saved_as_it_is_and_proven(tmp_path: Path, base: Path, data: Artifact) -> None:
    narrow = stored_as(base, tmp_path / "bf16", torch.bfloat16)
    folder, _, facts = export(tmp_path, {"from": artifact(Kind.MODEL, narrow), "data": data})
    assert (facts["parity/top1_agreement"], facts["parity/kl"]) == (1, 0)
    assert facts["parity/dtype"] == "bfloat16 as trained, bfloat16 as exported"
    assert "base_without_adapter" not in json.loads((folder / "parity.json").read_text())


def test_the_same_export_has_the_same_bytes(tmp_path: Path, lora: Artifact, data: Artifact) -> None:
    one, other = (export(tmp_path / name, {"from": lora, "data": data})[0] for name in ("one", "other"))
    assert artifact(Kind.MODEL, one).digest == artifact(Kind.MODEL, other).digest


def test_validation_rows_stand_in_for_test_rows(tmp_path: Path, lora: Artifact) -> None:
    folder = write_data(tmp_path / "data", messages_row, 2, 3, 0)
    facts = export(tmp_path, {"from": lora, "data": artifact(Kind.DATA, folder)})[2]
    assert facts["parity/rows"].startswith("3 validation rows of ")


def test_data_without_held_out_rows_is_refused(tmp_path: Path, lora: Artifact) -> None:
    folder = write_data(tmp_path / "data", messages_row, 2, 0, 0)
    with pytest.raises(BadData, match="no test and no validation rows") as caught:
        export(tmp_path, {"from": lora, "data": artifact(Kind.DATA, folder)})
    assert "--data" in caught.value.hint


def test_a_limit_that_is_broken_ends_in_a_failed_gate(tmp_path: Path, qlora: Artifact, data: Artifact) -> None:
    """A 4-bit base computes with other roundings than the merged model, so full agreement cannot be had."""
    with pytest.raises(
        GateFailed, match=r"merged is not the trained model: same likeliest token 9.*%, at least"
    ) as caught:
        export(tmp_path, {"from": qlora, "data": data}, min_top1_agreement=1.0)
    assert "min_top1_agreement" in caught.value.hint


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(tmp_path: Path, base: Path) -> None:
    source, _ = peft_adapter(base, tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(source.path)
    tokenizer.add_tokens(["<lost>"])
    tokenizer.save_pretrained(source.path)
    with pytest.raises(UsageError, match=r"its tokenizer has \d+ tokens, the model rows for \d+"):
        export(tmp_path, {"from": source})


# ---- adapter


def test_an_adapter_folder_is_loaded_by_peft_alone(tmp_path: Path, lora: Artifact) -> None:
    folder, notes, facts = export(tmp_path, {"from": lora}, to="adapter")
    ours = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert lora.base is not None
    assert ours.peft_config["default"].base_model_name_or_path == str(lora.base.path)
    merged, _, _ = export(tmp_path / "merged", {"from": lora}, parity_rows=2)
    expected = AutoModelForCausalLM.from_pretrained(merged)(input_ids=IDS).logits
    torch.testing.assert_close(ours(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert facts["to"] == "adapter"
    assert any("no name on the hub" in note for note in notes)
    assert not (folder / "parity.json").exists()


def test_an_adapter_on_a_hub_model_names_it_with_its_commit(tmp_path: Path, lora: Artifact) -> None:
    assert lora.base is not None
    hub = Artifact(Kind.MODEL, f"hf:org/name@{'c' * 40}", lora.base.path, lora.base.digest)
    source = Artifact(Kind.MODEL, lora.ref, lora.path, lora.digest, base=hub)
    folder, notes, _ = export(tmp_path, {"from": source}, to="adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "c" * 40)
    assert notes == [
        "the licence of hf:org/name@cccccccccccccccccccccccccccccccccccccccc is not known: the card says so; "
        "look it up before you share"
    ]
    assert "base_model: org/name" in (folder / "README.md").read_text()


def test_a_qlora_adapter_says_on_which_quantisation_it_was_trained(tmp_path: Path, qlora: Artifact) -> None:
    folder, notes, _ = export(tmp_path, {"from": qlora}, to="adapter")
    assert json.loads((folder / "base_model.json").read_text())["quantization"] == "nf4"
    assert any("4 bits (nf4)" in note for note in notes)
    assert "trained on the base in 4 bits (nf4)" in (folder / "README.md").read_text()


def test_a_whole_model_is_no_adapter(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="is a whole model, not an adapter"):
        export(tmp_path, {"from": artifact(Kind.MODEL, base)}, to="adapter")


# ---- gguf


def test_a_gguf_file_is_made_of_the_merged_model_and_read_back(tmp_path: Path, lora: Artifact, data: Artifact) -> None:
    merged = export(tmp_path / "merged", {"from": lora, "data": data})[0]
    script = fake_converter(tmp_path / "llama.cpp", copies(merged, tmp_path, same=merged))
    inputs = {"from": lora, "data": data, "converter": artifact(Kind.SOURCE, script)}
    folder, _, facts = export(tmp_path, inputs, to="gguf", gguf_type="f32")
    assert {path.name for path in folder.iterdir()} == {"README.md", "model-f32.gguf", "parity.json"}
    proof = json.loads((folder / "parity.json").read_text())
    assert proof["merged"]["parity"]["top1_agreement"] == proof["gguf"]["parity"]["top1_agreement"] == 1
    assert facts["parity/top1_agreement"] == 1


def test_a_converter_that_writes_another_model_fails_the_gate(
    tmp_path: Path, base: Path, lora: Artifact, data: Artifact
) -> None:
    script = fake_converter(tmp_path / "llama.cpp", copies(base, tmp_path))
    inputs = {"from": lora, "data": data, "converter": artifact(Kind.SOURCE, script)}
    with pytest.raises(GateFailed, match=r"model-f16\.gguf is not the trained model"):
        export(tmp_path, inputs, to="gguf")


def copies(model: Path, folder: Path, same: Path | None = None) -> str:
    """What lets a converter hand out a GGUF file of ``model``, if what it is given has the weights of ``same``."""
    made = write_gguf(model, folder / "made.gguf")
    lines = ["import hashlib, shutil"]
    if same is not None:
        expected = file_sha256(same / "model.safetensors")
        digest = "hashlib.sha256((found.model / 'model.safetensors').read_bytes()).hexdigest()"
        lines.append(f"assert {digest} == {expected!r}")
    return "\n".join([*lines, f"shutil.copyfile({str(made)!r}, found.outfile)"])


def test_a_gguf_file_that_nothing_here_can_read_is_published_and_said_to_be_not_compared(
    tmp_path: Path, lora: Artifact
) -> None:
    body = (
        "from gguf import GGUFWriter; writer = GGUFWriter(found.outfile, 'bespoke'); writer.write_header_to_file(); "
        "writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()"
    )
    inputs = {"from": lora, "converter": artifact(Kind.SOURCE, fake_converter(tmp_path / "x", body))}
    folder, notes, _ = export(tmp_path, inputs, to="gguf", parity_rows=2)
    assert any("was not compared: transformers reads no GGUF files of the architecture bespoke" in x for x in notes)
    assert "not_compared" in json.loads((folder / "parity.json").read_text())["gguf"]
    assert "was not compared" in (folder / "README.md").read_text()


# ---- the whole way, as a user goes it


def test_a_stages_model_is_exported_by_its_id_and_used(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    run = tmp_path / "run"
    common = ("--run", run, "--in-process")
    few = ("--max-steps", "2", "--global-batch-size", "2", "--learning-rate", "1e-2")
    assert ftcli("lora", *common, "--model", tiny_model, "--data", tiny_data, *few).code == 0
    called = ftcli("export", *common, "--from", "lora", "--data", tiny_data, "--min-top1-agreement", "0.5")
    assert called.code == 0, called.err
    folder = Path(called.out.strip())
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}
    assert "- lora (lora, ftcli" in (folder / "README.md").read_text()
    again = ftcli("export", *common, "--from", "lora.model", "--data", tiny_data, "--min-top1-agreement", "0.5")
    assert "export: cached" in again.err, "lora and lora.model are the same"
    assert ftcli("verify", "--run", run).code == 0
    script = fake_converter(tmp_path / "llama.cpp", copies(folder, tmp_path))
    gguf = ftcli(
        "export", *common, "--id", "file", "--from", "lora", "--to", "gguf", "--converter", script, "--parity-rows", "2"
    )
    assert gguf.code == 0, gguf.err
    used = ("sample", *common, "--data", tiny_data, "--train-prompts", "1", "--validation-prompts", "1")
    for number, model in enumerate([folder, "export", "file"]):
        found = ftcli(*used, "--id", f"used-{number}", "--model", model, "--max-new-tokens", "2")
        assert found.code == 0, found.err
    item = RunDir(run).latest("export")
    assert item is not None
    assert list(from_published(item, "model", Kind.MODEL, "x").made) == [
        f"stages/export/{item.path.name}",
        f"stages/lora/{RunDir(run).latest('lora').path.name}",  # type: ignore[union-attr]
    ]
