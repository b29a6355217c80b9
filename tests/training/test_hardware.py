from __future__ import annotations

from typing import Any

import pytest
import torch

from ftcli.core.errors import UsageError
from ftcli.training import hardware
from ftcli.training.hardware import Choice, Machine

CPU = Machine("cpu")
GPU = Machine("cuda", 80 * 2**30, has_liger=True)


@pytest.mark.parametrize(
    ("wanted", "machine", "four_bit", "chosen"),
    [
        ("auto", CPU, True, "adamw_torch_fused"),
        ("auto", GPU, False, "adamw_torch_fused"),
        ("auto", GPU, True, "paged_adamw_8bit"),
        ("adafactor", GPU, True, "adafactor"),
    ],
)
def test_the_optimizer_is_paged_for_4_bit_on_a_gpu(wanted: str, machine: Machine, four_bit: bool, chosen: str) -> None:
    assert hardware.choose_optimizer(wanted, machine, four_bit=four_bit).value == chosen


def test_paging_needs_a_gpu() -> None:
    with pytest.raises(UsageError, match=r"optim paged_adamw_8bit .* there is no GPU"):
        hardware.choose_optimizer("paged_adamw_8bit", CPU, four_bit=True)


# A 1B Llama (16 layers of 2048, 128,256 words) trained whole: 16 bytes a weight are 18.4 GiB; 16,384 tokens hold
# 34 * 16 * 2048 bytes each, 17.0 GiB, and logits of 12 * 128,256 bytes each, 23.5 GiB: 58.9 of 64 planned GiB.
ONE_B: dict[str, Any] = {"state_bytes": 16 * 1_235_814_400, "layers": 16, "hidden": 2048, "vocabulary": 128_256}


@pytest.mark.parametrize(
    ("wanted", "machine", "tokens", "chosen"),
    [
        (None, GPU, 16_384, Choice(False, "about 58.9 GiB of 80.0 free")),
        (None, GPU, 32_768, Choice(True, "about 99.4 GiB of 80.0 free")),
        (True, GPU, 1, Choice(True, "as set")),
        (False, GPU, 32_768, Choice(False, "as set")),
        (None, CPU, 32_768, Choice(False, "no GPU")),
    ],
)
def test_activations_are_computed_twice_where_memory_asks_for_it(
    wanted: bool | None, machine: Machine, tokens: int, chosen: Choice
) -> None:
    assert hardware.choose_checkpointing(wanted, machine, tokens=tokens, **ONE_B) == chosen


@pytest.mark.parametrize(
    ("wanted", "machine", "value"),
    [(None, CPU, False), (None, GPU, True), (None, Machine("cuda", 1), False), (False, GPU, False), (True, GPU, True)],
)
def test_liger_is_for_gpus_that_have_it(wanted: bool | None, machine: Machine, value: bool) -> None:
    assert hardware.choose_liger(wanted, machine).value is value


@pytest.mark.parametrize(
    ("machine", "missing"), [(CPU, "there is no GPU"), (Machine("cuda", 1), "liger-kernel is not installed")]
)
def test_liger_where_it_cannot_be_is_an_error(machine: Machine, missing: str) -> None:
    with pytest.raises(UsageError, match=f"use_liger_kernel: {missing}"):
        hardware.choose_liger(True, machine)


@pytest.mark.parametrize(
    ("wanted", "packs", "value"),
    [("auto", True, "packed"), ("auto", False, "sdpa"), ("sdpa", True, "sdpa"), ("eager", False, "eager")],
)
def test_rows_are_packed_where_the_model_keeps_them_apart(wanted: str, packs: bool, value: str) -> None:
    assert hardware.choose_attention(wanted, packs=packs, compiled=False).value == value


def test_packing_a_model_that_mixes_rows_is_an_error() -> None:
    with pytest.raises(UsageError, match="attn_implementation packed: this model's rows would see each other"):
        hardware.choose_attention("packed", packs=False, compiled=False)


def test_a_compiled_model_gets_padded_rows() -> None:
    assert hardware.choose_attention("auto", packs=True, compiled=True) == Choice("sdpa", "the model is compiled")
    with pytest.raises(UsageError, match="attn_implementation packed and torch_compile exclude each other"):
        hardware.choose_attention("packed", packs=True, compiled=True)


def test_compiling_is_for_those_who_ask() -> None:
    assert [hardware.choose_compile(wanted).value for wanted in (None, False, True)] == [False, False, True]


def test_a_step_takes_six_operations_a_weight_and_token_and_four_a_frozen_one() -> None:
    assert hardware.step_flops(10, 1000, 1000) == 60_000
    assert hardware.step_flops(10, 1000, 0) == 40_000


def test_a_cpu_has_no_known_peak() -> None:
    assert hardware.peak_flops(torch.device("cpu")) is None
