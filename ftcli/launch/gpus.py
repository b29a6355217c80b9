"""Which GPUs there are, asked of the driver, so that the controller needs no torch for it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from itertools import takewhile

from ftcli.core.errors import UsageError

NVML = "libnvidia-ml.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def installed_gpus() -> int:
    """How many GPUs the driver (NVML, the library behind nvidia-smi) tells of; 0 without a driver."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return 0
    count = ctypes.c_uint()
    if nvml.nvmlInit_v2() != 0:
        return 0
    try:
        return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
    finally:
        nvml.nvmlShutdown()


def visible_gpus(environment: Mapping[str, str], installed: int) -> list[str]:
    """The names of the GPUs that CUDA would show: those of CUDA_VISIBLE_DEVICES up to the first that is not there, or all."""
    if installed == 0:
        return []
    names = environment.get(VISIBLE, ",".join(map(str, range(installed)))).split(",")
    is_uuid = ("GPU-", "MIG-")
    return list(
        takewhile(
            lambda name: name.startswith(is_uuid) or (name.isdigit() and int(name) < installed),
            (name.strip() for name in names),
        )
    )


def one_gpu_each(processes: int) -> list[str]:
    """A GPU for each of several processes; none without GPUs. Raises `UsageError` where there are some, but too few."""
    gpus = visible_gpus(os.environ, installed_gpus())
    if 0 < len(gpus) < processes:
        raise UsageError(
            f"{processes} processes need a GPU each, {len(gpus)} visible ({', '.join(gpus)})",
            f"ask for {len(gpus)}, or set {VISIBLE}= to nothing to train on the CPU",
        )
    return gpus[:processes]
