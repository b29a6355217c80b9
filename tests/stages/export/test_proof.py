"""The proof must catch what goes wrong with merges; each wrong model is made and saved by PEFT's and transformers' own means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.core.errors import GateFailed
from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import load_base, load_model
from ftcli.models.merge import merge
from ftcli.stages.export.export import trained_answers
from ftcli.stages.export.proof import proven
from tests.conftest import artifact
from tests.models.adapters import peft_adapter, stored_as
from tests.stages.export.exporting import context

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def base(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_as(tiny_model, tmp_path_factory.mktemp("base") / "wide", request.param)


def scaled(source: Artifact, factor: float) -> Any:
    """The merged model as it would be if the adapter's scaling were wrong by ``factor``."""
    model = load_model(source, torch.float32, CPU)
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = {name: value * factor for name, value in module.scaling.items()}
    return model.merge_and_unload()


def check(tmp_path: Path, source: Artifact, data: Path, wrong: Any, dtype: torch.dtype) -> dict[str, Any]:
    ctx, notes = context(tmp_path, {"from": source, "data": artifact(Kind.DATA, data)})
    reference = trained_answers(ctx, CPU)
    wrong.to(dtype).save_pretrained(tmp_path / "model")
    found = proven(ctx, reference, "merged", tmp_path / "model", dtype, CPU, str(dtype).removeprefix("torch."))
    return {**found, "notes": notes}


def stored(base: Path) -> torch.dtype:
    dtype: torch.dtype = AutoModelForCausalLM.from_pretrained(base, dtype="auto").dtype
    return dtype


def test_a_right_merge_passes(tmp_path: Path, base: Path, tiny_data: Path) -> None:
    source, _ = peft_adapter(base, tmp_path / "adapter", dtype=stored(base))
    found = check(tmp_path, source, tiny_data, merge(source, CPU).model, stored(base))
    assert found["parity"]["top1_agreement"] >= 0.9


@pytest.mark.parametrize("factor", [0, 0.5, 2], ids=["unmerged", "half", "twice"])
def test_an_adapter_that_is_missing_or_scaled_wrongly_fails(
    factor: float, tmp_path: Path, base: Path, tiny_data: Path
) -> None:
    source, _ = peft_adapter(base, tmp_path / "adapter", dtype=stored(base))
    wrong = load_base(base, torch.float32, CPU) if factor == 0 else scaled(source, factor)
    with pytest.raises(GateFailed, match="is not the trained model"):
        check(tmp_path, source, tiny_data, wrong, stored(base))


@pytest.mark.parametrize("base", [torch.float32], ids=["float32"], indirect=True)
def test_a_merge_that_is_quantised_again_fails(tmp_path: Path, base: Path, tiny_data: Path) -> None:
    """PEFT's merge into 4-bit layers rounds the sum to 4 bits."""
    source, _ = peft_adapter(base, tmp_path / "adapter", quantization="nf4")
    wrong = load_model(source, torch.float32, CPU).merge_and_unload().dequantize()
    with pytest.raises(GateFailed, match="is not the trained model"):
        check(tmp_path, source, tiny_data, wrong, torch.float32)


@pytest.mark.parametrize("base", [torch.float32], ids=["float32"], indirect=True)
def test_even_a_weak_adapter_that_was_lost_is_noticed(tmp_path: Path, base: Path, tiny_data: Path) -> None:
    """The base agrees on nearly every likeliest token here; against what little training did, it is still all of it."""
    source, _ = peft_adapter(base, tmp_path / "adapter", std=0.004)
    with pytest.raises(GateFailed, match=r"is not the trained model: KL divergence"):
        check(tmp_path, source, tiny_data, load_base(base, torch.float32, CPU), torch.float32)


@pytest.mark.parametrize("base", [torch.bfloat16], ids=["bfloat16"], indirect=True)
def test_a_proof_that_proves_nothing_says_so(tmp_path: Path, base: Path, tiny_data: Path) -> None:
    source, _ = peft_adapter(base, tmp_path / "adapter", dtype=torch.bfloat16, std=1e-5)
    found = check(tmp_path, source, tiny_data, merge(source, CPU).model, torch.bfloat16)
    assert any("cannot tell the trained model from its base" in note for note in found["notes"])
