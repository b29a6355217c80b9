from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from ftcli.core.errors import Corrupt, UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import (
    load_base,
    load_model,
    load_tokenizer,
    load_tokenizer_of,
    longest_input,
    pick_dtype,
    read_base_record,
    save_adapter,
    write_base_record,
)
from ftcli.training.adapters import add_lora
from tests.conftest import artifact
from tests.tiny import write_tiny_model

CPU = torch.device("cpu")
IDS = torch.arange(3, 20)[None]


@pytest.fixture
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model)


@pytest.fixture
def adapter(base: Artifact, tmp_path: Path) -> Artifact:
    """An adapter whose weights are not the identity."""
    torch.manual_seed(0)
    model = add_lora(load_base(base.path, torch.float32, CPU), r=4, alpha=8, dropout=0.0, target_modules=["q_proj"])
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    folder = tmp_path / "adapter"
    save_adapter(model, folder)
    write_base_record(folder, base)
    return artifact(Kind.MODEL, folder, base=base)


def test_an_adapter_is_loaded_on_its_base_as_peft_loads_it(adapter: Artifact, base: Artifact) -> None:
    ours = load_model(adapter, torch.float32, CPU)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), adapter.path).eval()
    assert torch.equal(ours(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    assert not torch.equal(ours(input_ids=IDS).logits, load_base(base.path, torch.float32, CPU)(input_ids=IDS).logits)
    assert not any(weight.requires_grad for weight in ours.parameters())


def test_an_adapter_can_be_loaded_for_training(adapter: Artifact) -> None:
    model = load_model(adapter, torch.bfloat16, CPU, trainable=True)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}


def test_an_adapter_is_quantised_as_it_was_trained(adapter: Artifact, base: Artifact) -> None:
    write_base_record(adapter.path, base, "nf4", double_quant=False)
    model = load_model(adapter, torch.bfloat16, CPU)
    state = model.get_base_model().model.layers[0].mlp.up_proj.weight.quant_state
    assert (state.quant_type, state.nested) == ("nf4", False)


def test_saving_the_same_adapter_gives_the_same_bytes(adapter: Artifact, base: Artifact, tmp_path: Path) -> None:
    save_adapter(load_model(adapter, torch.float32, CPU), tmp_path / "again")
    write_base_record(tmp_path / "again", base)
    assert artifact(Kind.MODEL, tmp_path / "again").digest == adapter.digest


def test_an_adapter_of_another_base_is_refused(adapter: Artifact, tmp_path: Path) -> None:
    other = artifact(Kind.MODEL, write_tiny_model(tmp_path / "other", seed=1))
    with pytest.raises(UsageError, match="trained on a model with digest"):
        load_model(replace(adapter, base=other), torch.float32, CPU)


def test_an_adapter_that_does_not_fit_its_base_is_refused(adapter: Artifact, tmp_path: Path) -> None:
    (adapter.path / "base_model.json").unlink()
    wider = artifact(Kind.MODEL, write_tiny_model(tmp_path / "wider", hidden_size=128))
    with pytest.raises(UsageError, match="does not fit its base"):
        load_model(replace(adapter, base=wider), torch.float32, CPU)


def test_a_torn_adapter_file_is_corrupt(adapter: Artifact) -> None:
    weights = adapter.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(Corrupt, match="cannot be read"):
        load_model(adapter, torch.float32, CPU)


def test_the_base_record_names_the_base_in_our_words_and_in_pefts(adapter: Artifact, base: Artifact) -> None:
    assert read_base_record(adapter.path) == {"ref": base.ref, "digest": base.digest, "quantization": None}
    hub = replace(base, ref="hf:org/name@abc123")
    write_base_record(adapter.path, hub)
    config = json.loads((adapter.path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "abc123")


def test_a_base_in_the_same_run_is_recorded_relative_to_the_adapter(adapter: Artifact, base: Artifact) -> None:
    write_base_record(adapter.path, replace(base, ref="stages/sft/abc/model", path=adapter.path.parent / "sft"))
    assert read_base_record(adapter.path)["ref"] == "../sft"


def test_an_adapter_without_a_tokenizer_has_its_bases(adapter: Artifact, base: Artifact) -> None:
    assert load_tokenizer_of(adapter).get_vocab() == load_tokenizer(base.path).get_vocab()
    own = load_tokenizer(base.path)
    own.chat_template = "{{ messages }}"
    own.save_pretrained(adapter.path)
    assert load_tokenizer_of(adapter).chat_template == "{{ messages }}"


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_a_folder_without_weights_is_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model: no causal language model: .*safetensors"):
        load_base(folder, torch.float32, CPU)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="no causal language model") as raised:
        load_base(tmp_path, torch.float32, CPU)
    assert "config.json" in raised.value.hint
    with pytest.raises(UsageError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_a_torn_weight_file_is_corrupt(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Corrupt, match="cannot be read"):
        load_base(folder, torch.float32, CPU)


def test_an_unknown_quantization_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="unknown quantization 'int3'"):
        load_base(tiny_model, torch.float32, CPU, "int3")


def test_the_longest_input_is_told_without_loading_the_model(tiny_model: Path, tmp_path: Path) -> None:
    assert longest_input(tiny_model) == 512
    bloom = AutoConfig.for_model("bloom")  # positions by ALiBi: no limit of its own
    bloom.save_pretrained(tmp_path)
    assert longest_input(tmp_path) is None
    with pytest.raises(UsageError, match="no causal language model"):
        longest_input(tmp_path / "nothing")


def test_precision_can_be_forced() -> None:
    assert pick_dtype("bf16", CPU) is torch.bfloat16
    assert pick_dtype("fp32", CPU) is torch.float32
    assert pick_dtype("auto", CPU) in (torch.bfloat16, torch.float32)
