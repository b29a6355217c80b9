"""Models without dropout: where log-probabilities of two passes are compared, both must be the model's own."""

from __future__ import annotations

from torch import nn


def disable_dropout(model: nn.Module) -> bool:
    """Set every dropout of ``model``, also those of adapters, to 0; return whether there was one to set.

    Besides the layers these are the numbers that transformers' modules hand to functions, such as ``attention_dropout`` (Llama)
    or ``dropout`` and ``layerdrop`` (OPT).
    """
    found = False
    for module in model.modules():
        names = ["p"] if isinstance(module, nn.Dropout) else [name for name in vars(module) if "drop" in name]
        for name in names:
            value = getattr(module, name)
            if isinstance(value, float) and value > 0:
                setattr(module, name, 0.0)
                found = True
    return found
