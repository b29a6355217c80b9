from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, PreTrainedModel

from ftcli.core.errors import UsageError
from ftcli.models.load import load_base, save_adapter
from ftcli.training.adapters import add_lora, save_start

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)


def lora(model: PreTrainedModel, *targets: str) -> PeftModel:
    return add_lora(model, r=4, alpha=8, dropout=0.0, target_modules=targets)


def test_all_linear_takes_every_layer_but_the_head(model: PreTrainedModel) -> None:
    adapted = lora(model, "all-linear")
    names = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_only_adapters_train_and_in_float32(model: PreTrainedModel) -> None:
    trained = {name: weight for name, weight in lora(model, "q_proj").named_parameters() if weight.requires_grad}
    assert len(trained) == 4  # A and B in each of two layers
    assert all("lora_" in name and ".default." in name for name in trained)
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    # A is [r, in], B is [out, r]; q_proj is 64 x 64
    assert sum(weight.numel() for weight in trained.values()) == 2 * (4 * 64 + 64 * 4)


@pytest.mark.parametrize("targets", [("query",), ("q_proj", "query"), ("lm_head",), ("embed_tokens",)])
def test_a_target_without_a_layer_lists_those_that_exist(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=targets[-1]) as raised:
        lora(model, *targets)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in raised.value.hint


def product(layer: Any) -> torch.Tensor:
    """What the adapter adds to the weight."""
    return layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight


def lora_layers(model: PeftModel) -> dict[str, Any]:
    return {name: module for name, module in model.base_model.model.named_modules() if isinstance(module, LoraLayer)}


def test_rslora_scales_by_the_root_of_the_rank(model: PreTrainedModel) -> None:
    adapted = add_lora(model, r=16, alpha=8, use_rslora=True)
    assert {layer.scaling["default"] for layer in lora_layers(adapted).values()} == {2.0}  # 8 / sqrt(16)


def test_dora_trains_a_magnitude_for_each_output(model: PreTrainedModel) -> None:
    adapted = add_lora(model, r=4, alpha=8, target_modules=["q_proj"], use_dora=True)
    magnitudes = [weight for name, weight in adapted.named_parameters() if "magnitude" in name]
    assert [weight.shape for weight in magnitudes] == [(64,), (64,)]
    assert all(weight.requires_grad for weight in magnitudes)


def test_pissa_starts_at_the_largest_singular_directions_and_saves_an_adapter_for_the_unchanged_base(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    weights = {name: weight.detach().clone() for name, weight in base.named_parameters()}
    adapted = add_lora(base, r=4, alpha=8, init="pissa")
    for name, layer in lora_layers(adapted).items():
        left, sizes, right = torch.linalg.svd(weights[f"{name}.weight"])
        torch.testing.assert_close(product(layer), left[:, :4] * sizes[:4] @ right[:4], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(
            layer.get_base_layer().weight + product(layer), weights[f"{name}.weight"], atol=1e-5, rtol=0
        )
    start = save_start(adapted, tmp_path / "start")
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn_like(weight)
    ids = torch.arange(12)[None]
    trained = adapted.eval()(input_ids=ids).logits
    save_adapter(adapted, tmp_path / "saved", start)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "saved").eval()
    torch.testing.assert_close(again(input_ids=ids).logits, trained, atol=1e-3, rtol=1e-3)
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_loftq_makes_up_for_rounding_as_well_as_its_rank_allows(tiny_model: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = add_lora(load_base(tiny_model, torch.bfloat16, CPU, "nf4"), r=8, alpha=4, init="loftq")
    for name, layer in lora_layers(adapted).items():
        weight = layer.get_base_layer().weight
        rounded = bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float()
        missing = whole.get_parameter(f"{name}.weight").detach() - rounded
        # No matrix of rank 8 is nearer than the sum of the squares of the singular values that are left (Eckart and Young).
        best = torch.linalg.svdvals(missing)[8:].square().sum()
        torch.testing.assert_close((missing - product(layer)).square().sum(), best, rtol=1e-3, atol=1e-9)
        assert best < 0.8 * missing.square().sum()


def test_loftq_needs_the_bases_own_weights(tiny_model: Path, tmp_path: Path) -> None:
    base = load_base(tiny_model, torch.bfloat16, CPU, "nf4")
    base.config._name_or_path = str(tmp_path)
    with pytest.raises(UsageError, match="init_lora_weights loftq compares with the base's own weights"):
        add_lora(base, r=8, alpha=4, init="loftq")


def test_modules_to_save_are_trained_whole_in_float32_and_stay_tied(model: PreTrainedModel) -> None:
    adapted = add_lora(model, r=4, alpha=8, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    trained = {
        name: weight for name, weight in adapted.named_parameters() if weight.requires_grad and "lora" not in name
    }
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert {weight.numel() for weight in trained.values()} == {397 * 64}
    embeddings, head = adapted.get_input_embeddings(), adapted.get_output_embeddings()
    assert embeddings.weight is head.weight  # the tiny model's are tied


def test_a_module_to_save_that_is_not_there_lists_those_that_are(model: PreTrainedModel) -> None:
    with pytest.raises(UsageError, match="lora_modules_to_save: no module of this model is named embeddings") as raised:
        add_lora(model, r=4, alpha=8, modules_to_save=["embeddings"])
    assert "embed_tokens" in raised.value.hint
