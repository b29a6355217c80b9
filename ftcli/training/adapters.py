"""New LoRA adapters (arXiv 2106.09685) through PEFT, with every target checked."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ftcli.core.errors import UsageError
from ftcli.models.low_rank import lean_lora

ALL_LINEAR = "all-linear"


def add_lora(model: PreTrainedModel, *, r: int, alpha: int, dropout: float, target_modules: Sequence[str]) -> PeftModel:
    """Freeze ``model`` and put float32 adapters named ``default`` on its ``target_modules``.

    ``all-linear`` is every linear layer but the head. Raises `UsageError` for a target that matches no such layer:
    PEFT accepts it as long as another target matches.
    """
    names = _linear_names(model)
    everything = list(target_modules) == [ALL_LINEAR]
    if not everything:
        _check_targets(target_modules, names)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=ALL_LINEAR if everything else list(target_modules),
    )
    adapted = get_peft_model(model, config)
    lean_lora(adapted)
    return adapted


def _linear_names(model: PreTrainedModel) -> list[str]:
    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def _check_targets(targets: Sequence[str], names: list[str]) -> None:
    missing = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in names)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in names})
        raise UsageError(
            f"lora_target_modules: no linear layer of this model is named {', '.join(missing)}",
            f"it has {', '.join(known)}; {ALL_LINEAR} takes all of them",
        )
