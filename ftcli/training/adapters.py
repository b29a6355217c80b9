"""New LoRA adapters (arXiv 2106.09685) through PEFT, with every target checked, and where they start.

``init`` is where they start: ``default`` at no change (B is zero); ``pissa`` at the base's largest singular directions, and the
base keeps the rest (arXiv 2404.02948), so that what is saved must be turned into an adapter for the unchanged base; ``loftq`` at
what 4-bit rounding took from the base (arXiv 2310.08659).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ftcli.core.errors import UsageError
from ftcli.models.load import save_adapter
from ftcli.models.low_rank import lean_lora

ALL_LINEAR = "all-linear"
Init = Literal["default", "pissa", "loftq"]


def add_lora(
    model: PreTrainedModel,
    *,
    r: int,
    alpha: int,
    dropout: float = 0.0,
    target_modules: Sequence[str] = (ALL_LINEAR,),
    modules_to_save: Sequence[str] = (),
    use_rslora: bool = False,
    use_dora: bool = False,
    init: Init = "default",
) -> PeftModel:
    """Freeze ``model`` and put float32 adapters named ``default`` on its ``target_modules``.

    ``all-linear`` is every linear layer but the head. ``modules_to_save`` are trained whole, tied ones together. Raises
    `UsageError` for a name that matches no such layer: PEFT accepts it as long as another one matches.
    """
    names = _linear_names(model)
    everything = list(target_modules) == [ALL_LINEAR]
    if not everything:
        _check_names("lora_target_modules", "linear layer", target_modules, names)
    _check_names("lora_modules_to_save", "module", modules_to_save, [name for name, _ in model.named_modules() if name])
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=ALL_LINEAR if everything else list(target_modules),
        modules_to_save=list(modules_to_save) or None,
        ensure_weight_tying=bool(modules_to_save) and bool(model.config.tie_word_embeddings),
        use_rslora=use_rslora,
        use_dora=use_dora,
        init_lora_weights="pissa" if init == "pissa" else True,
    )
    adapted = get_peft_model(model, config)
    if init == "loftq":
        _start_from_rounding_errors(adapted, Path(model.config._name_or_path))
    widen_trained_modules(adapted)
    lean_lora(adapted)
    return adapted


def widen_trained_modules(model: PeftModel) -> None:
    """Hold modules that are trained whole in float32, like the adapters.

    Such a model must be computed under autocast (`trains_modules_whole`), since the modules around them stay as they are.
    """
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.modules_to_save.float()


def trains_modules_whole(model: nn.Module) -> bool:
    """Whether some modules are trained whole, by the settings or by those of the adapter that is trained further."""
    return any(isinstance(module, ModulesToSaveWrapper) for module in model.modules())


def save_start(model: PeftModel, folder: Path) -> Path | None:
    """Keep how a ``pissa`` adapter started, which `save_adapter` needs; None for others. To be called before training."""
    config = model.peft_config["default"]
    if config.init_lora_weights != "pissa":
        return None
    config.init_lora_weights = True  # what is kept are plain weights
    save_adapter(model, folder)
    config.init_lora_weights = "pissa"
    return folder


@torch.no_grad()
def _start_from_rounding_errors(model: PeftModel, folder: Path) -> None:
    """Set A and B to the best approximation of rank r of ``W - dequantised W`` (LoftQ, arXiv 2310.08659, algorithm 1 with T = 1).

    PEFT's ``replace_lora_weights_loftq`` does the same, on GPUs only. The original weights are read from ``folder`` layer by layer.
    """
    for name, layer in model.base_model.model.named_modules():
        if not isinstance(layer, LoraLayer) or not isinstance(layer.get_base_layer(), bnb.nn.Linear4bit):
            continue
        stored = layer.get_base_layer().weight
        rounded = bnb.functional.dequantize_4bit(stored.data, stored.quant_state).float()  # [out, in]
        missing = _stored_weight(folder, f"{name}.weight").to(rounded) - rounded
        left, sizes, right = torch.linalg.svd(missing, full_matrices=False)
        rank = layer.r["default"]
        root = (sizes[:rank] / layer.scaling["default"]).sqrt()  # the adapter counts ``scaling`` times
        layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
        layer.lora_B["default"].weight.copy_(left[:, :rank] * root)


def _stored_weight(folder: Path, name: str) -> Tensor:
    """One tensor of a model folder, without reading the others."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118  (no mapping)
                return file.get_tensor(name)
    raise UsageError(
        f"init_lora_weights loftq compares with the base's own weights, and {folder} holds no {name} in safetensors",
        "use init_lora_weights default",
    )


def _linear_names(model: PreTrainedModel) -> list[str]:
    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def _check_names(setting: str, kind: str, wanted: Sequence[str], names: list[str]) -> None:
    missing = [want for want in wanted if not any(name == want or name.endswith(f".{want}") for name in names)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
        raise UsageError(
            f"{setting}: no {kind} of this model is named {', '.join(missing)}",
            f"it has {', '.join(known)}{f'; {ALL_LINEAR} takes all of them' if kind == 'linear layer' else ''}",
        )
