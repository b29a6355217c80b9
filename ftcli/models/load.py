"""Load a model folder, or an adapter folder with its base, ready to compute; save adapters so that they find their
base again.

An adapter folder is a plain PEFT folder plus ``base_model.json``: where the base is (relative to the folder for one
made in the same run directory, so that a moved run still works), its digest, and the quantisation it was trained on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ftcli.core.errors import Corrupt, UsageError
from ftcli.core.stage import Artifact
from ftcli.models.gated import lean_gates
from ftcli.models.low_rank import lean_lora
from ftcli.models.norms import lean_norms
from ftcli.models.packing import enable_packing
from ftcli.models.quantize import keep_4bit_trainable, nf4_config

Precision = Literal["auto", "bf16", "fp32"]
BASE_RECORD = "base_model.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_MODEL_HINT = "a model is a folder with config.json, weights and tokenizer, a .gguf file, or hf:org/name"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware has it, else float32."""
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model or adapter folder. Padding goes right; generation pads left by itself
    (models/generate.py).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: no tokenizer can be loaded: {_first_line(error)}", _MODEL_HINT) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_tokenizer_of(artifact: Artifact) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, or of an adapter; one that was saved without its tokenizer has its base's."""
    has_own = artifact.base is None or (artifact.path / "tokenizer_config.json").is_file()
    return load_tokenizer(artifact.path if has_own else artifact.base.path)  # type: ignore[union-attr]


def longest_input(folder: Path) -> int | None:
    """The tokens that the model in ``folder`` can read, from its config; None where that tells no limit."""
    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: no causal language model: {_first_line(error)}", _MODEL_HINT) from None
    found = getattr(config, "max_position_embeddings", None)
    return None if found is None else int(found)


def load_base(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    quantization: str | None = None,
    double_quant: bool = True,
    *,
    packing: bool = False,
) -> PreTrainedModel:
    """A causal language model in evaluation mode; ``quantization="nf4"`` loads its linear layers in 4 bits (not the
    head), ``packing`` prepares it for packed rows if it can take them (`ftcli.models.packing`).

    Raises `UsageError` when ``folder`` is no model or lacks weights, `Corrupt` when a weight file cannot be read.
    """
    extra: dict[str, Any] = {}
    if quantization == "nf4":
        extra = {"quantization_config": nf4_config(dtype, double_quant), "device_map": {"": device}}
    elif quantization is not None:
        raise UsageError(f"{folder}: unknown quantization {quantization!r}", "nf4 is known")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", **extra)
    except SafetensorError as error:
        raise Corrupt(
            f"{folder}: a weight file cannot be read: {_first_line(error)}", "fetch the model again"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: no causal language model: {_first_line(error)}", _MODEL_HINT) from None
    if quantization == "nf4":
        keep_4bit_trainable(model)
    else:
        model = model.to(device)
    if packing:
        enable_packing(model)
        lean_norms(model)
        lean_gates(model)
    return model.eval()


def read_base_record(folder: Path) -> dict[str, Any]:
    path = folder / BASE_RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def load_model(artifact: Artifact, dtype: torch.dtype, device: torch.device, *, trainable: bool = False) -> Any:
    """A `PreTrainedModel`, or for an adapter a `PeftModel` on its base: 4-bit again if it was trained so, with the rows of tokens
    that were added, and modules that were trained whole in the model's own format."""
    if artifact.base is None:
        return load_base(artifact.path, dtype, device)
    return adapt(load_base_of(artifact, dtype, device), artifact, dtype, trainable=trainable)


def adapt(base: PreTrainedModel, artifact: Artifact, dtype: torch.dtype, *, trainable: bool = False) -> PeftModel:
    """The adapter ``artifact`` on ``base``, which gets the rows of tokens that were added; modules that were trained whole are in
    ``dtype``, that of the base, unless they are ``trainable``."""
    fit_vocabulary(base, artifact.path)
    model = load_adapter(base, artifact, trainable=trainable)
    if not trainable:
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.modules_to_save.to(dtype)
    return model


def load_base_of(
    artifact: Artifact, dtype: torch.dtype, device: torch.device, *, packing: bool = False
) -> PreTrainedModel:
    """The base of the adapter ``artifact``, quantised as it was when the adapter was trained."""
    assert artifact.base is not None
    record = read_base_record(artifact.path)
    quantization, double_quant = record.get("quantization"), record.get("double_quant", True)
    return load_base(artifact.base.path, dtype, device, quantization, double_quant, packing=packing)


def fit_vocabulary(base: PreTrainedModel, folder: Path) -> bool:
    """Give ``base`` as many rows of embeddings as the adapter in ``folder`` brings; whether that changed anything.

    PEFT saves whole embeddings when tokens were added, and refuses them on a base that does not have these tokens.
    """
    path = folder / ADAPTER_WEIGHTS
    modules = [module for module in (base.get_input_embeddings(), base.get_output_embeddings()) if module is not None]
    names = {f"base_model.model.{name}" for name, module in base.named_modules() if module in modules}
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys() if _module_of(key) in names]  # noqa: SIM118
    except SafetensorError as error:
        raise _unreadable(folder, error) from None
    rows = max((shape[0] for shape in shapes if len(shape) == 2), default=None)
    if rows is None or rows == base.get_input_embeddings().weight.shape[0]:
        return False
    base.resize_token_embeddings(rows, mean_resizing=False)
    return True


def is_low_rank_alone(folder: Path) -> bool:
    """Whether the adapter in ``folder`` is nothing but low-rank factors. What else adapters bring, such as whole modules, trained
    biases and rows of new tokens, takes the place of weights of the base, and PEFT does not put all of these back."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():  # in another file format
        return False
    with safe_open(path, framework="pt") as file:
        return all(".lora_" in key for key in file.keys())  # noqa: SIM118


def _module_of(key: str) -> str:
    """The module that a tensor of an adapter file replaces as a whole; an empty string for a part of an adapter."""
    return key.removesuffix(".weight").removesuffix(".base_layer") if key.endswith(".weight") else ""


def load_adapter(base: PreTrainedModel, artifact: Artifact, *, trainable: bool = False) -> PeftModel:
    """The adapter ``artifact`` on ``base``, in float32 and named ``default``.

    Raises `UsageError` when it was trained on another base than ``artifact.base`` or does not fit its layers.
    """
    trained_on = read_base_record(artifact.path).get("digest")
    if artifact.base is not None and trained_on not in (None, artifact.base.digest):
        raise UsageError(
            f"{artifact.ref}: this adapter was trained on a model with digest {trained_on}, not on {artifact.base.ref} "
            f"({artifact.base.digest})",
            "give the base that it was trained on",
        )
    try:
        model = PeftModel.from_pretrained(base, artifact.path, is_trainable=trainable)
    except SafetensorError as error:
        raise _unreadable(artifact.path, error) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"{artifact.ref}: this adapter does not fit its base: {_first_line(error)}",
            "give the base that it was trained on",
        ) from None
    lean_lora(model)
    return model


def _unreadable(folder: Path, error: SafetensorError) -> Corrupt:
    return Corrupt(f"{folder}: the adapter cannot be read: {_first_line(error)}", "train it again")


def save_adapter(model: PeftModel, folder: Path, start: Path | None = None) -> None:
    """Write the adapter ``default`` as a PEFT folder whose bytes depend on the weights alone.

    PEFT writes target modules in the order of a set and adds a model card without content. ``start`` is where an adapter
    that changed its base when it was made keeps how it began (`ftcli.training.adapters.save_start`): what is written then has
    twice the rank and belongs to the unchanged base.
    """
    model.save_pretrained(
        folder,
        selected_adapters=["default"],
        save_embedding_layers=False,
        path_initial_model_for_weight_conversion=str(start) if start else None,
    )
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_base_record(
    folder: Path, base: Artifact, quantization: str | None = None, double_quant: bool | None = None
) -> None:
    """Record in an adapter folder which base it belongs to, also under PEFT's own key in adapter_config.json.

    A base from the same run directory (``stages/...``) is recorded relative to ``folder``; others by what the user
    wrote (``demo:``, ``hf:`` with its commit) or by absolute path.
    """
    inside = base.ref.startswith("stages/")
    where = os.path.relpath(base.path, folder) if inside else base.ref
    record = {"ref": where, "digest": base.digest, "quantization": quantization}
    if quantization:
        record["double_quant"] = double_quant
    (folder / BASE_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    path = folder / "adapter_config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        name, _, revision = base.ref.removeprefix("hf:").partition("@")
        is_hub = base.ref.startswith("hf:")
        config["base_model_name_or_path"] = name if is_hub else (where if inside else str(base.path))
        config["revision"] = revision if is_hub else None
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
