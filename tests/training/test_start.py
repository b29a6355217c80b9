from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import IA3Config
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import save_adapter, write_base_record
from ftcli.training.adapters import add_lora
from ftcli.training.start import Start, load_start
from tests.conftest import artifact


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model)


def adapter(folder: Path, base: Artifact, quantization: str | None = None, **more: Any) -> Artifact:
    """A new adapter of rank 3 on ``base``, recorded as trained on weights of ``quantization``."""
    folder.mkdir()
    save_adapter(add_lora(AutoModelForCausalLM.from_pretrained(base.path), r=3, alpha=6, **more), folder)
    AutoTokenizer.from_pretrained(base.path).save_pretrained(folder)
    write_base_record(folder, base, quantization, True if quantization else None)
    return artifact(Kind.MODEL, folder, base=base)


def load(source: Artifact, method: Any, dtype: torch.dtype = torch.float32, **more: Any) -> Start:
    return load_start(source, method, dtype, torch.device("cpu"), r=2, alpha=4, **more)


def trained(start: Start) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in start.model.named_parameters() if weight.requires_grad}


def rank(start: Start) -> int:
    return int(start.model.peft_config["default"].r)


@pytest.mark.parametrize("method", ["auto", "lora"])
def test_a_whole_model_gets_a_new_adapter_in_float32_on_weights_as_asked(base: Artifact, method: str) -> None:
    start = load(base, method, torch.bfloat16)
    assert (start.is_whole, start.is_fresh, start.quantization, rank(start)) == (False, True, None, 2)
    assert all("lora_" in name and weight.dtype is torch.float32 for name, weight in trained(start).items())
    frozen = {weight.dtype for weight in start.model.parameters() if not weight.requires_grad}
    assert frozen == {torch.bfloat16}
    assert not start.needs_autocast


def test_full_trains_every_weight_in_float32_and_computes_bf16_by_autocast(base: Artifact) -> None:
    start = load(base, "full", torch.bfloat16)
    assert (start.is_whole, start.is_fresh, start.quantization) == (True, False, None)
    assert {weight.dtype for weight in start.model.parameters()} == {torch.float32}
    assert len(trained(start)) == len(list(start.model.parameters()))
    assert start.needs_autocast


def test_qlora_holds_the_frozen_weights_in_four_bits(base: Artifact) -> None:
    start = load(base, "qlora")
    assert (start.quantization, start.double_quant) == ("nf4", True)
    assert any(hasattr(weight, "quant_state") for weight in start.model.parameters())


def test_auto_goes_by_the_record_of_the_adapter(base: Artifact, tmp_path: Path) -> None:
    plain, rounded = adapter(tmp_path / "plain", base), adapter(tmp_path / "rounded", base, "nf4")
    for source, quantization in ((plain, None), (rounded, "nf4")):
        start = load(source, "auto")
        assert (start.is_fresh, start.quantization, rank(start)) == (False, quantization, 3)
    for source, method, how in ((plain, "qlora", "unrounded"), (rounded, "lora", "in 4 bits")):
        with pytest.raises(UsageError, match=f"was trained on its base {how}") as caught:
            load(source, method)
        assert caught.value.hint == "set method to auto"


def test_an_adapter_that_was_there_contradicts_another_shape(base: Artifact, tmp_path: Path) -> None:
    start = load(adapter(tmp_path / "plain", base), "auto")
    assert start.contradicted({}) == start.contradicted({"lora_r": 3, "lora_alpha": 6, "seed": 1}) == ""
    assert start.contradicted({"lora_r": 8, "lora_alpha": 9}) == "lora_r 8 (it has 3), lora_alpha 9 (it has 6)"
    assert load(base, "auto").contradicted({"lora_r": 8}) == "", "a new one was made as asked"
    other = Start(SimpleNamespace(peft_config={"default": IA3Config()}), is_fresh=False)
    assert (other.contradicted({}), other.contradicted({"lora_r": 8})) == ("", "lora_r 8 (it has none)")


def test_a_new_adapter_takes_the_place_of_one_that_is_not_kept(base: Artifact, tmp_path: Path) -> None:
    start = load(adapter(tmp_path / "plain", base), "auto", keeps_adapter=False)
    assert (start.is_fresh, rank(start)) == (True, 2)


@pytest.mark.parametrize(("recorded", "method", "quantization"), [("nf4", "lora", None), (None, "qlora", "nf4")])
def test_the_record_of_an_adapter_that_is_not_kept_binds_nobody(
    base: Artifact, tmp_path: Path, recorded: str | None, method: str, quantization: str | None
) -> None:
    start = load(adapter(tmp_path / "adapter", base, recorded), method, keeps_adapter=False)
    assert (start.is_fresh, start.quantization, rank(start)) == (True, quantization, 2)


def test_full_refuses_an_adapter_and_says_how_to_merge(base: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is an adapter, and method full trains all weights") as caught:
        load(adapter(tmp_path / "plain", base), "full")
    assert "ftcli export" in caught.value.hint


def test_modules_that_an_adapter_trains_whole_are_float32_and_need_autocast(base: Artifact, tmp_path: Path) -> None:
    start = load(adapter(tmp_path / "whole", base, modules_to_save=["embed_tokens"]), "auto", torch.bfloat16)
    assert {weight.dtype for weight in trained(start).values()} == {torch.float32}
    assert any("modules_to_save" in name for name in trained(start))
    assert start.needs_autocast


def test_an_adapter_that_added_tokens_finds_room_for_them(base: Artifact, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base.path)
    rows = model.get_input_embeddings().weight.shape[0] + 2
    model.resize_token_embeddings(rows, mean_resizing=False)
    folder = tmp_path / "longer"
    folder.mkdir()
    save_adapter(add_lora(model, r=3, alpha=6, modules_to_save=["embed_tokens"]), folder)
    write_base_record(folder, base)
    assert json.loads((folder / "base_model.json").read_text())["digest"] == base.digest
    start = load(artifact(Kind.MODEL, folder, base=base), "auto")
    assert start.model.get_input_embeddings().weight.shape[0] == rows
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    while len(tokenizer) < rows:
        tokenizer.add_tokens([f"<added {len(tokenizer)}>"])
    tokenizer.save_pretrained(folder)
    longer = artifact(Kind.MODEL, folder, base=base)
    with pytest.raises(UsageError, match="brings tokens that the bare base has not") as caught:
        load(longer, "auto", keeps_adapter=False)
    assert caught.value.hint == "set init_from to policy"
