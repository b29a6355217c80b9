"""Adapters as PEFT itself makes and saves them, with weights that are not zero."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import load_base
from tests.conftest import artifact

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def peft_adapter(
    base: Path,
    folder: Path,
    *,
    new_tokens: int = 0,
    quantization: str | None = None,
    dtype: torch.dtype = torch.float32,
    std: float = 0.1,
    **options: Any,
) -> tuple[Artifact, Any]:
    """The artifact of an adapter on ``base`` saved by PEFT, and the model in memory that it was saved from."""
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = load_base(base, dtype, torch.device("cpu"), quantization)
    if new_tokens:
        tokenizer.add_tokens([f"<new{index}>" for index in range(new_tokens)])
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    chosen = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ATTENTION, **options}
    model = get_peft_model(model, LoraConfig(**chosen))
    changed = ("lora_B", "lora_embedding_A", "modules_to_save", "trainable_tokens_delta", "magnitude")
    for name, weight in model.named_parameters():
        if any(part in name for part in changed) and weight.is_floating_point():
            weight.data += torch.randn_like(weight) * std
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    base_artifact = artifact(Kind.MODEL, base)
    record = {"ref": str(base), "digest": base_artifact.digest, "quantization": quantization}
    (folder / "base_model.json").write_text(json.dumps(record))
    return artifact(Kind.MODEL, folder, ref="stages/lora/0123456789ab/model", base=base_artifact), model


def stored_as(base: Path, folder: Path, dtype: torch.dtype, **config: Any) -> Path:
    """A copy of the model ``base`` stored in ``dtype``, with weights large enough that its answers differ between tokens."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(2)
    for weight in model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.15)
    for name, value in config.items():
        setattr(model.config, name, value)
    model.to(dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder
