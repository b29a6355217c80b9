"""Choices that the hardware and the model's size make, each with its reason, and each open to be made by the user instead."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from ftcli.core.errors import UsageError

ROOM = 0.8
"""Share of a GPU's free memory that is planned for; the rest goes to fragments, the framework, and what is not counted."""

PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A6000": 155e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense bfloat16 operations a second, from the makers' data sheets; the first name that fits counts."""


@dataclass(frozen=True)
class Choice:
    value: Any
    reason: str


@dataclass(frozen=True)
class Machine:
    """What decides. ``free_bytes`` is a GPU's free memory before the model is there; None on a CPU."""

    device: str
    free_bytes: int | None = None
    has_liger: bool = False

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"


def this_machine(device: torch.device) -> Machine:
    has_liger = importlib.util.find_spec("liger_kernel") is not None
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return Machine(device.type, free, has_liger)


def choose_optimizer(wanted: str, machine: Machine, *, four_bit: bool) -> Choice:
    if wanted != "auto":
        if wanted.startswith("paged") and not machine.is_gpu:
            raise UsageError(
                f"optim {wanted} pages between a GPU's memory and the host's, and there is no GPU",
                "use adamw_8bit, or leave optim to auto",
            )
        return Choice(wanted, "as set")
    if four_bit and machine.is_gpu:
        return Choice("paged_adamw_8bit", "4-bit base on a GPU (arXiv 2305.14314)")
    return Choice("adamw_torch_fused", "one kernel for all weights")


def choose_compile(wanted: bool | None) -> Choice:
    if wanted is None:
        return Choice(False, "new lengths would be compiled anew")
    return Choice(wanted, "as set")


def choose_liger(wanted: bool | None, machine: Machine) -> Choice:
    if wanted:
        if not machine.is_gpu or not machine.has_liger:
            missing = "there is no GPU" if not machine.is_gpu else "liger-kernel is not installed"
            raise UsageError(
                f"use_liger_kernel: {missing}", "pip install liger-kernel on a GPU machine, or leave it out"
            )
        return Choice(True, "as set")
    if wanted is None and machine.is_gpu:
        return Choice(machine.has_liger, "installed" if machine.has_liger else "not installed")
    return Choice(False, "as set" if wanted is False else "no GPU")


def choose_checkpointing(
    wanted: bool | None, machine: Machine, *, state_bytes: int, tokens: int, layers: int, hidden: int, vocabulary: int
) -> Choice:
    """Whether activations are computed twice. ``state_bytes`` are weights, gradients and optimizer state, ``tokens`` those of the
    largest micro-batch.

    Activations in 16 bits take about 34 bytes a token, layer and hidden unit where attention keeps no scores (arXiv 2205.05198,
    equation 2), and logits with their gradient in float32 12 bytes a token and word of the vocabulary.
    """
    if wanted is not None:
        return Choice(wanted, "as set")
    if machine.free_bytes is None:
        return Choice(False, "no GPU")
    need = state_bytes + tokens * (34 * layers * hidden + 12 * vocabulary)
    text = f"about {need / 2**30:.1f} GiB of {machine.free_bytes / 2**30:.1f} free"
    return Choice(need > ROOM * machine.free_bytes, text)


def step_flops(tokens: int, parameters: int, trainable: int) -> float:
    """Floating-point operations of a training step over ``tokens``, by the model's sums of products alone.

    2 a weight and token forward, 2 backward through it, and 2 for the gradient of a weight that is trained (arXiv 2001.08361,
    section 2.1, with frozen weights left out of the last). Not counted: attention's own products, what checkpointing repeats.
    """
    return tokens * (4.0 * parameters + 2.0 * trainable)


def peak_flops(device: torch.device) -> float | None:
    """What this GPU can do a second, None where it is not known or there is none."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for known, flops in PEAK_FLOPS.items() if known in name), None)


def choose_attention(wanted: str, *, packs: bool, compiled: bool) -> Choice:
    """``packs``: the model keeps packed rows apart (`ftcli.models.packing.enable_packing`). ``compiled`` models are not given any:
    no two packed batches have the same shape, and each would be compiled anew.
    """
    if wanted == "packed" and compiled:
        raise UsageError(
            "attn_implementation packed and torch_compile exclude each other: every batch of packed rows would be compiled anew",
            "drop one of them",
        )
    if wanted == "auto" and compiled:
        return Choice("sdpa", "the model is compiled")
    if wanted == "packed" and not packs:
        raise UsageError(
            "attn_implementation packed: this model's rows would see each other, or it changes attention scores",
            "leave attn_implementation to auto, which pads for such models",
        )
    if wanted == "auto":
        return Choice("packed", "no padding") if packs else Choice("sdpa", "this model cannot keep packed rows apart")
    return Choice(wanted, "as set")
