"""The oracle is PEFT's own unmerged forward, and where weights are compared, the papers' formulas in float64."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import load_base, load_model
from ftcli.models.merge import compute_dtype, merge, quantization_of, stored_dtype
from tests.conftest import artifact
from tests.models.adapters import peft_adapter, stored_as

CPU = torch.device("cpu")
IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_as(tiny_model, tmp_path_factory.mktemp("base") / "wide", torch.float32)


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model(input_ids=ids).logits.float()


def exported(source: Artifact, folder: Path) -> tuple[Any, list[str]]:
    """The merged model as somebody else would load it."""
    merged = merge(source, CPU)
    merged.model.save_pretrained(folder)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), merged.notes


KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bias": {"lora_bias": True, "target_modules": ["o_proj"]},
    "whole layer": {"modules_to_save": ["layers.1.mlp.up_proj"]},
    "all linear": {"target_modules": "all-linear"},
}


def with_biases(base: Path, folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(stored_as(base, folder, torch.float32))
    model.config.attention_bias = True
    type(model)(model.config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_says_what_the_adapter_on_its_base_says(kind: str, base: Path, tmp_path: Path) -> None:
    source, trained = peft_adapter(
        with_biases(base, tmp_path / "biased") if kind == "bias" else base, tmp_path / "adapter", **KINDS[kind]
    )
    model, notes = exported(source, tmp_path / "out")
    torch.testing.assert_close(logits(model), logits(trained), rtol=1e-4, atol=1e-4)
    with trained.disable_adapter():
        assert (logits(model) - logits(trained)).abs().max() > 0.1, "the adapter matters"
    assert model.config.tie_word_embeddings is True
    assert notes == []


def test_a_pissa_adapter_converted_for_its_base_merges(base: Path, tmp_path: Path) -> None:
    """As PEFT's guide says: keep the start, train, save the difference as an adapter of twice the rank."""
    source, _ = peft_adapter(base, tmp_path / "unused")
    torch.manual_seed(1)
    options = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"]}
    model: Any = get_peft_model(load_base(base, torch.float32, CPU), LoraConfig(init_lora_weights="pissa", **options))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += torch.randn_like(weight) * 0.1
    model.save_pretrained(tmp_path / "pissa", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    converted = artifact(Kind.MODEL, tmp_path / "pissa", base=source.base)
    found, _ = exported(converted, tmp_path / "out")
    torch.testing.assert_close(logits(found), logits(model), rtol=1e-3, atol=1e-3)


def test_the_sum_is_taken_in_float32_and_rounded_once(base: Path, tmp_path: Path) -> None:
    narrow = stored_as(base, tmp_path / "bf16", torch.bfloat16)
    source, trained = peft_adapter(narrow, tmp_path / "adapter", dtype=torch.bfloat16)
    assert stored_dtype(source) is torch.bfloat16
    model, _ = exported(source, tmp_path / "out")
    layer = trained.base_model.model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = layer.base_layer.weight.double() + 8 / 4 * b.double() @ a.double()
    merged = model.model.layers[0].self_attn.q_proj.weight
    assert merged.dtype is torch.bfloat16
    # Where float32 itself lies between two bfloat16 numbers, either is right.
    assert (merged != exact.to(torch.bfloat16)).double().mean() < 0.001


def test_a_model_without_an_adapter_stays_as_it_is(base: Path, tmp_path: Path) -> None:
    narrow = stored_as(base, tmp_path / "bf16", torch.bfloat16)
    model, notes = exported(artifact(Kind.MODEL, narrow), tmp_path / "out")
    original = AutoModelForCausalLM.from_pretrained(narrow, dtype="auto").state_dict()
    assert all(torch.equal(weight, original[name]) for name, weight in model.state_dict().items())
    assert (model.dtype, notes) == (torch.bfloat16, [])


# ---- 4-bit bases


def test_a_qlora_adapter_is_merged_into_the_dequantised_base(base: Path, tmp_path: Path) -> None:
    source, _ = peft_adapter(base, tmp_path / "adapter", quantization="nf4")
    assert quantization_of(source) == "nf4"
    fresh = load_model(source, compute_dtype(source, CPU), CPU)
    layer = fresh.base_model.model.model.layers[0].self_attn.q_proj
    stored = layer.base_layer.weight
    dequantised = bnb.functional.dequantize_4bit(stored.data, stored.quant_state).double()
    exact = dequantised + 8 / 4 * layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
    model, notes = exported(source, tmp_path / "out")
    torch.testing.assert_close(model.model.layers[0].self_attn.q_proj.weight, exact.float())
    assert any("dequantised" in note for note in notes)


def test_that_is_much_nearer_to_what_was_trained_than_the_original_base_with_the_adapter(
    base: Path, tmp_path: Path
) -> None:
    source, trained = peft_adapter(base, tmp_path / "adapter", quantization="nf4")
    model, _ = exported(source, tmp_path / "right")
    shutil.copytree(source.path, tmp_path / "forgotten")
    record = tmp_path / "forgotten" / "base_model.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"quantization": None}))
    other, _ = exported(replace(source, path=tmp_path / "forgotten"), tmp_path / "wrong")
    right, wrong = ((logits(one) - logits(trained)).abs().mean() for one in (model, other))
    assert right < wrong / 3


# ---- tied embeddings and added tokens

TIED = {
    "head trained whole": {"modules_to_save": ["lm_head"]},
    "embeddings trained whole": {"modules_to_save": ["embed_tokens"]},
    "adapter on the embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "adapter on the head": {"target_modules": ["q_proj", "lm_head"]},
}


@pytest.mark.parametrize("kind", TIED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_what_one_of_two_tied_tensors_learned_is_neither_lost_nor_given_to_the_other(
    kind: str, dtype: torch.dtype, base: Path, tmp_path: Path
) -> None:
    start = stored_as(base, tmp_path / "base", dtype)
    source, _ = peft_adapter(start, tmp_path / "adapter", dtype=dtype, **TIED[kind])
    trained = load_model(source, dtype, CPU)
    model, notes = exported(source, tmp_path / "out")
    tolerance = 1e-4 if dtype is torch.float32 else 0.15
    torch.testing.assert_close(logits(model), logits(trained), rtol=tolerance, atol=tolerance)
    assert model.config.tie_word_embeddings is False
    assert any("now two tensors" in note for note in notes)
    assert model.dtype is dtype


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
        {"trainable_token_indices": [5, 6, 7]},
    ],
    ids=["whole", "adapter", "tokens"],
)
def test_what_was_trained_tied_stays_tied(options: dict[str, Any], base: Path, tmp_path: Path) -> None:
    source, trained = peft_adapter(base, tmp_path / "adapter", **options)
    model, notes = exported(source, tmp_path / "out")
    torch.testing.assert_close(logits(model), logits(trained), rtol=1e-4, atol=1e-4)
    assert model.config.tie_word_embeddings is True
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert notes == []


def test_added_tokens_keep_their_rows(base: Path, tmp_path: Path) -> None:
    source, trained = peft_adapter(base, tmp_path / "adapter", new_tokens=3)
    rows = AutoModelForCausalLM.from_pretrained(base).config.vocab_size + 3
    ids = torch.tensor([[5, rows - 3, rows - 2, rows - 1, 9]])
    model, notes = exported(source, tmp_path / "out")
    assert model.config.vocab_size == rows
    torch.testing.assert_close(logits(model, ids), logits(trained, ids), rtol=1e-4, atol=1e-4)
    assert any(f"{rows} rows" in note for note in notes)
    torch.testing.assert_close(logits(load_model(source, torch.float32, CPU), ids), logits(trained, ids))


# ---- what cannot be merged


def test_an_adapter_that_is_no_change_of_weights_is_refused(base: Path, tmp_path: Path) -> None:
    model = get_peft_model(
        load_base(base, torch.float32, CPU), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    )
    model.save_pretrained(tmp_path / "adapter")
    source = artifact(Kind.MODEL, tmp_path / "adapter", ref="prompts", base=artifact(Kind.MODEL, base))
    with pytest.raises(UsageError, match=r"prompts: an adapter of the kind .*PROMPT_TUNING") as caught:
        merge(source, CPU)
    assert "--to adapter" in caught.value.hint
