"""Policies for the stages that need one: an adapter on the tiny model, as lora leaves it."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import save_adapter, write_base_record
from tests.conftest import artifact


def write_adapter(folder: Path, base: Artifact, *, rank: int = 4, dropout: float = 0.0) -> Artifact:
    """A random adapter that changes what the model says."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=dropout
    )
    adapted = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    folder.mkdir(parents=True)
    save_adapter(adapted, folder)
    AutoTokenizer.from_pretrained(base.path).save_pretrained(folder)
    write_base_record(folder, base)
    return artifact(Kind.MODEL, folder, base=base)
