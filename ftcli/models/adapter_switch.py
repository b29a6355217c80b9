"""Which of a model's adapters is at work, changed in well under a millisecond.

PEFT's own `set_adapter` and `disable_adapter` walk through all modules several times: on 210 small layers with four adapters
that took a tenth of a rollout's training (0.1 s a switch). Here the layers and weights are listed once. What is set are the same
attributes, among them two that are private to PEFT's layers; models that also have modules trained whole are left to PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn


class AdapterSwitch:
    """For the adapters that ``model`` has when this is made; what is switched with PEFT meanwhile is not noticed."""

    def __init__(self, model: PeftModel) -> None:
        self._model = model
        self._is_plain = not any(isinstance(module, AuxiliaryTrainingWrapper) for module in model.modules())
        self._layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        self.weights = {name: _weights_of(model, name) for name in model.peft_config}
        """Of each adapter, modules trained whole aside."""

    def to(self, adapter: str, *, trained: bool) -> None:
        """Make ``adapter`` the only active one; its weights alone require gradients, and only where ``trained``."""
        if not self._is_plain:
            self._model.set_adapter(adapter, inference_mode=not trained)
            return
        for layer in self._layers:
            layer._active_adapter = [adapter]
        for name, weights in self.weights.items():
            for weight in weights:
                weight.requires_grad_(trained and name == adapter)

    @contextmanager
    def off(self) -> Iterator[None]:
        """No adapter at work meanwhile; gradients stay as they are."""
        if not self._is_plain:
            with self._model.disable_adapter():
                yield
            return
        before = [layer._disable_adapters for layer in self._layers]
        for layer in self._layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, was in zip(self._layers, before, strict=True):
                layer._disable_adapters = was


def _weights_of(model: PeftModel, adapter: str) -> list[nn.Parameter]:
    # "...q_proj.lora_A.default.weight": the adapter's name stands right behind the kind of matrix
    return [
        parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name and adapter in name.rsplit(".lora_", 1)[1].split(".")
    ]
